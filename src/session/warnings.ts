/** Warnings that are told before there is anybody to hear them: they wait. */
export class Warnings {
  readonly #waiting: string[] = [];
  #listener: ((message: string) => void) | null = null;

  tell(message: string): void {
    if (this.#listener === null) this.#waiting.push(message);
    else this.#listener(message);
  }

  listen(listener: (message: string) => void): void {
    this.#listener = listener;
    for (const message of this.#waiting.splice(0)) listener(message);
  }
}
