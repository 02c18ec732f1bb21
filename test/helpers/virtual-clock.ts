import type { Clock } from '../../src/base/clock.js';

/** Time that moves only when a test says so; actions run in the order of their instants. */
export class VirtualClock implements Clock {
  #nowMs = 1000;
  #timers: { atMs: number; action: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  at(atMs: number, action: () => void): () => void {
    const timer = { atMs, action };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  get timers(): number {
    return this.#timers.length;
  }

  get nextAtMs(): number {
    return Math.min(...this.#timers.map((timer) => timer.atMs));
  }

  /** Lets `ms` pass. */
  pass(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      this.#timers.sort((left, right) => left.atMs - right.atMs);
      const [first] = this.#timers;
      if (first === undefined || first.atMs > endMs) break;
      this.#timers.shift();
      this.#nowMs = Math.max(this.#nowMs, first.atMs);
      first.action();
    }
    this.#nowMs = endMs;
  }
}
