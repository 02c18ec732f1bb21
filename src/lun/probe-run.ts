import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';

/** Pause before the second probe of a LUN that is away: some changes take a second only. */
const PAUSE_FIRST_MS = 500;

/** Pauses between the probes of a LUN that is away: they double up to the interval. */
export class ProbePace {
  readonly #intervalMs: () => number;
  #pauseMs = PAUSE_FIRST_MS;

  constructor(intervalMs: () => number) {
    this.#intervalMs = intervalMs;
  }

  /** Another absence: the next pause is short. */
  beginsAnew(): void {
    this.#pauseMs = PAUSE_FIRST_MS;
  }

  nextMs(): number {
    const intervalMs = this.#intervalMs();
    const pauseMs = Math.min(this.#pauseMs, intervalMs);
    this.#pauseMs = Math.min(2 * this.#pauseMs, intervalMs);
    return pauseMs;
  }
}

/**
 * The probes of one LUN, one after another. A probe that has been replaced may still be waiting for
 * an answer; what it finds does not count any more (`isCurrent` is false for it).
 */
export class ProbeRun {
  isRunning = false;
  readonly #clock: Clock;
  /** Number of the newest probe. */
  #number = 0;
  #cancelNext: () => void = () => undefined;
  /** Resolves those who wait for the end of the probe under way. */
  #waiters: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Takes the place of the probe before. `failed` is called if this one rejects with an error of
   * the product, unless it has been replaced.
   */
  start(probe: (isCurrent: () => boolean) => Promise<void>, failed: () => void): void {
    this.stop();
    const number = this.#number;
    const isCurrent = () => number === this.#number;
    this.isRunning = true;
    probe(isCurrent)
      .catch((error: unknown) => {
        productError(error);
        if (isCurrent()) failed();
      })
      .finally(() => {
        if (isCurrent()) this.#end();
      });
  }

  /** Calls `probe` after a pause, unless another one is started, or `stop` called, before. */
  later(pauseMs: number, probe: () => void): void {
    this.#cancelNext = this.#clock.at(this.#clock.nowMs() + pauseMs, probe);
  }

  stop(): void {
    this.#number += 1;
    this.#cancelNext();
    this.#end();
  }

  /** Resolves when the probe under way ends or is replaced, at `untilMs` at the latest. */
  ended(untilMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const cancel = this.#clock.at(untilMs, done);
      signal?.addEventListener('abort', done, { once: true });
      this.#waiters.push(done);
    });
  }

  #end(): void {
    this.isRunning = false;
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}
