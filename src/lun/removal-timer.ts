import { type Clock, NEVER_MS } from '../base/clock.js';

/**
 * Answers that put the removal off at most: a probe needs a dozen, and begins anew a few times if
 * the disk reports a change meanwhile.
 */
const ANSWERS_MAX = 64;

/**
 * The time that something may be away before waiting requests fail: the removal latency, and the
 * only place that measures it.
 */
export class RemovalTimer {
  readonly #clock: Clock;
  readonly #timers: RemovalTimers;
  readonly #due: (reason: string) => void;
  #cancel: () => void = () => undefined;
  #sinceMs = NEVER_MS;
  #isUnasked: () => boolean = () => false;
  #answersLeft = 0;
  /** The latency has passed, but the disk had not been asked; `start` begins anew. */
  isOverdue = false;

  constructor(options: {
    readonly clock: Clock;
    readonly timers: RemovalTimers;
    /** The removal latency has passed. */
    readonly due: (reason: string) => void;
  }) {
    this.#clock = options.clock;
    this.#timers = options.timers;
    this.#due = options.due;
  }

  /** Instant at which it is due; Infinity while it does not run, or never ends. */
  get dueAtMs(): number {
    return this.#sinceMs === NEVER_MS ? NEVER_MS : this.#sinceMs + this.#timers.removalLatencyMs;
  }

  /**
   * Counts from `sinceMs`. If `isUnasked` holds at the end, the disk is not to blame: neighbours
   * stand in the way of the probe, and `isOverdue` says that the timer has to be started again.
   */
  start(sinceMs: number, isUnasked: () => boolean = () => false): void {
    this.#answersLeft = ANSWERS_MAX;
    this.#count(sinceMs, isUnasked);
  }

  /** The disk exists and answers questions: the time counts from now, so often at most. */
  answered(): void {
    if (this.#sinceMs === NEVER_MS || this.#answersLeft === 0) return;
    this.#answersLeft -= 1;
    this.#count(this.#clock.nowMs(), this.#isUnasked);
  }

  #count(sinceMs: number, isUnasked: () => boolean): void {
    this.stop();
    this.#sinceMs = sinceMs;
    this.#isUnasked = isUnasked;
    const { dueAtMs } = this;
    if (dueAtMs === NEVER_MS) return;
    this.#cancel = this.#clock.at(dueAtMs, () => {
      this.isOverdue = this.#isUnasked();
      if (this.isOverdue) return;
      const seconds = this.#timers.removalLatencyMs / 1000;
      this.stop();
      this.#due(`away for the removal latency of ${seconds} s`);
    });
  }

  /** The removal latency is another one: a timer that runs counts from its beginning. */
  latencyChanged(): void {
    if (this.#sinceMs !== NEVER_MS) this.#count(this.#sinceMs, this.#isUnasked);
  }

  stop(): void {
    this.#cancel();
    this.#cancel = () => undefined;
    this.#sinceMs = NEVER_MS;
    this.isOverdue = false;
  }
}

/** Infinity: for ever. */
export type RemovalTimers = { readonly removalLatencyMs: number };
