/** What a client is told when acknowledged writes are gone. */
export const CACHE_LOST = 'the disk lost acknowledged writes that were not yet flushed';

/**
 * The rule about a volatile write cache (INTERFACE.md, "Semantics"): when the disk says that it
 * lost power, or that an acknowledged write failed, and there are acknowledged writes that no flush
 * covered, the next flush has to fail; so has every flush that is under way at that moment, because
 * nobody knows whether the disk ran it before or after.
 */
export class WriteCacheWatch {
  #acknowledged = 0;
  #flushed = 0;
  #untold = false;
  /** Times the cache may have been emptied, whether or not that lost anything. */
  powerEvents = 0;
  /** Times acknowledged writes were lost. */
  losses = 0;

  /** A write has been acknowledged to its client from the volatile cache. */
  writeAcknowledged(): void {
    this.#acknowledged += 1;
  }

  /** What a flush that is sent now covers; hand it to `flushed` when it has succeeded. */
  get mark(): number {
    return this.#acknowledged;
  }

  flushed(mark: number): void {
    if (mark > this.#flushed) this.#flushed = mark;
  }

  /** Power-on or reset: the cache's content may be gone. */
  mayBeLost(): void {
    this.powerEvents += 1;
    if (this.#acknowledged > this.#flushed) this.#lost();
  }

  /** A deferred error: some write acknowledged earlier has failed, whatever was known of caches. */
  isLost(): void {
    this.powerEvents += 1;
    this.#lost();
  }

  /** True once for each loss: the flush that asks has to fail. */
  takeLoss(): boolean {
    const untold = this.#untold;
    this.#untold = false;
    return untold;
  }

  #lost(): void {
    this.#flushed = this.#acknowledged;
    this.#untold = true;
    this.losses += 1;
  }
}
