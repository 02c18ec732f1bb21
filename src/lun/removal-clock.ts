import type { Clock } from '../base/clock.js';

/** The time a unit may be away before it is removed. */
export class RemovalClock {
  readonly #clock: Clock;
  readonly #timers: { readonly removalLatencyMs: number };
  readonly #due: (reason: string) => void;
  #cancel: () => void = () => undefined;
  /** The time is over, but the unit had not been asked; `start` begins anew. */
  isOverdue = false;

  constructor(options: {
    readonly clock: Clock;
    readonly timers: { readonly removalLatencyMs: number };
    /** The removal latency has passed. */
    readonly due: (reason: string) => void;
  }) {
    this.#clock = options.clock;
    this.#timers = options.timers;
    this.#due = options.due;
  }

  /**
   * Counts from `sinceMs`. If `isUnasked` holds at the end, the unit is not to blame: neighbours
   * stand in the way of the question, and `isOverdue` says that it has to be started again.
   */
  start(sinceMs: number, isUnasked: () => boolean): void {
    this.stop();
    const { removalLatencyMs } = this.#timers;
    if (removalLatencyMs === Number.POSITIVE_INFINITY) return;
    this.#cancel = this.#clock.at(sinceMs + removalLatencyMs, () => {
      this.isOverdue = isUnasked();
      if (!this.isOverdue)
        this.#due(`away for the removal latency of ${removalLatencyMs / 1000} s`);
    });
  }

  stop(): void {
    this.#cancel();
    this.#cancel = () => undefined;
    this.isOverdue = false;
  }
}
