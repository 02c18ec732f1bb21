/** Buckets to each doubling: quantiles are exact to about 9 %. */
const BUCKETS_PER_DOUBLING = 8;
/** The first bucket ends at one microsecond; 2^32 µs, over an hour, and more share the last. */
const BUCKETS = 32 * BUCKETS_PER_DOUBLING;

/** What has been counted so far; times in milliseconds. */
type LatencySummary = {
  readonly count: number;
  readonly averageMs: number;
  readonly maximumMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
};

/** How long commands took, in buckets of a fixed ratio: no allocation for each command. */
export class LatencyHistogram {
  readonly #buckets = new Float64Array(BUCKETS);
  count = 0;
  totalMs = 0;
  maximumMs = 0;

  /** One command took `ms` milliseconds. */
  add(ms: number): void {
    this.count += 1;
    this.totalMs += ms;
    if (ms > this.maximumMs) this.maximumMs = ms;
    const exact = Math.ceil(Math.log2(ms * 1000) * BUCKETS_PER_DOUBLING);
    const index = exact > 0 ? Math.min(exact, BUCKETS - 1) : 0;
    this.#buckets[index] = (this.#buckets[index] ?? 0) + 1;
  }

  /** Copy of the counts, to be handed to `since` later. */
  snapshot(): Float64Array {
    return this.#buckets.slice();
  }

  /** Upper bound in milliseconds of the fastest `part` (0 … 1) of the commands; 0 for none. */
  quantileMs(part: number, since?: Float64Array): number {
    const countOf = (index: number) => (this.#buckets[index] ?? 0) - (since?.[index] ?? 0);
    let total = 0;
    for (let index = 0; index < BUCKETS; index += 1) total += countOf(index);
    if (total === 0) return 0;
    let left = Math.ceil(part * total);
    for (let index = 0; index < BUCKETS; index += 1) {
      left -= countOf(index);
      if (left <= 0) return 2 ** (index / BUCKETS_PER_DOUBLING) / 1000;
    }
    return this.maximumMs;
  }

  /** Quantiles count from `since` where it is given, the rest from the beginning. */
  summary(since?: Float64Array): LatencySummary {
    return {
      count: this.count,
      averageMs: this.count === 0 ? 0 : this.totalMs / this.count,
      maximumMs: this.maximumMs,
      p50Ms: this.quantileMs(0.5, since),
      p99Ms: this.quantileMs(0.99, since),
    };
  }
}
