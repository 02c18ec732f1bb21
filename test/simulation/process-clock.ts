import type { Clock } from '../../src/base/clock.js';

/** The clock of one process: with the process all it was going to do is gone. */
export class ProcessClock implements Clock {
  readonly #clock: Clock;
  readonly #cancels = new Set<() => void>();
  #isDead = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  at(atMs: number, action: () => void): () => void {
    if (this.#isDead) return () => undefined;
    const cancel = this.#clock.at(atMs, () => {
      this.#cancels.delete(cancel);
      action();
    });
    this.#cancels.add(cancel);
    return () => {
      this.#cancels.delete(cancel);
      cancel();
    };
  }

  /** The process ends as it stands. */
  die(): void {
    this.#isDead = true;
    for (const cancel of this.#cancels) cancel();
    this.#cancels.clear();
  }
}
