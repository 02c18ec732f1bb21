/** A client with replies to writes and flushes; the model compares only their identity. */
export type ClientId = object;

/**
 * Clients with a flush to fail after a loss: all that are connected then, and not only the writer,
 * because a program may write on one connection and flush on another; and those that connect before
 * the loss has been reported to any client.
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

  /** A reply that reported the loss may be lost: a client that connects now need not have one. */
  perhapsTold(): void {
    this.#isUnheard = false;
  }

  /** The loss has to be reported to no client any more. */
  forget(): void {
    this.#isUnheard = false;
    this.#waiting.clear();
  }
}
