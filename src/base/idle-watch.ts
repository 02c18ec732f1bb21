/** Counts what is under way, and tells when nothing is. */
export class IdleWatch {
  #count = 0;
  #waiting: (() => void)[] = [];

  began(): void {
    this.#count += 1;
  }

  ended(): void {
    this.#count -= 1;
  }

  /** To be called when what has ended has been dealt with, and may have begun something else. */
  tell(): void {
    if (this.#count > 0 || this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.tell();
    });
  }
}
