/** Whoever is told of writes and flushes; the model only asks whether two are the same. */
export type ClientId = object;

/**
 * Clients with a flush to fail after a loss: all that are connected then, whoever wrote, because a
 * program may write on one connection and flush on another; and those that come while nobody has
 * been told.
 */
export class LossListeners {
  readonly #connected = new Set<ClientId>();
  readonly #waiting = new Set<ClientId>();
  #isUnheard = false;

  isWaiting(client: ClientId): boolean {
    return this.#waiting.has(client);
  }

  get isAnybodyWaiting(): boolean {
    return this.#isUnheard || this.#waiting.size > 0;
  }

  came(client: ClientId): void {
    this.#connected.add(client);
    if (this.#isUnheard) this.#waiting.add(client);
  }

  gone(client: ClientId): void {
    this.#connected.delete(client);
    this.#waiting.delete(client);
  }

  /** There is something to tell. */
  all(): void {
    this.#isUnheard = true;
    for (const client of this.#connected) this.#waiting.add(client);
  }

  told(client: ClientId): void {
    this.#isUnheard = false;
    this.#waiting.delete(client);
  }

  /** Somebody may have been told, whose answer is lost: who comes now need not be. */
  perhapsTold(): void {
    this.#isUnheard = false;
  }

  /** Nobody has to be told any more. */
  forget(): void {
    this.#isUnheard = false;
    this.#waiting.clear();
  }
}
