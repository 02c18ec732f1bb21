import type { BlockRequest, BlockRequestOwner } from './block-device.js';
import { LossDebts } from './loss-debts.js';
import type { ScsiDiskHooks } from './scsi-disk-hooks.js';
import { WrittenRegions } from './written-regions.js';

/** What a client is told when acknowledged writes are gone. */
export const CACHE_LOST = 'the disk lost acknowledged writes that were not yet flushed';

/** A number below that of any write. */
const BEFORE_ALL = -1;

/**
 * The rule about a volatile write cache (docs/block-semantics.md, "A write cache that is lost"):
 * when the disk says that it lost power, or that an acknowledged write failed, and there are
 * acknowledged writes that no flush covered, a flush of each client has to fail (`LossDebts` says
 * whose); so has every flush that is under way at that moment, because nobody knows whether the
 * disk ran it before or after.
 */
export class WriteCacheWatch {
  readonly debts: LossDebts;
  readonly #regions: WrittenRegions;
  readonly #hooks: Pick<ScsiDiskHooks, 'firstWrite' | 'lossChanged'>;
  #isWritten = false;
  #acknowledged = 0;
  #flushed = 0;
  /** Acknowledged writes when the last flush began. */
  #flushBegan = 0;
  /** Times the cache may have been emptied, whether or not that lost anything. */
  powerEvents = 0;
  /** Times acknowledged writes were lost. */
  losses = 0;

  constructor(sizeBytes: number, hooks: Pick<ScsiDiskHooks, 'firstWrite' | 'lossChanged'>) {
    this.#hooks = hooks;
    this.#regions = new WrittenRegions(sizeBytes);
    this.debts = new LossDebts(this.#regions, (isUntold) => hooks.lossChanged(isUntold));
  }

  /** A write is about to be acknowledged to its client from the volatile cache. */
  writeAcknowledged({ offsetBytes, lengthBytes }: BlockRequest): void {
    if (!this.#isWritten) this.#firstWrite();
    this.#acknowledged += 1;
    this.#regions.written(offsetBytes, lengthBytes, this.#acknowledged);
  }

  /** A process before this one may have had writes acknowledged, anywhere. */
  mayHaveBeenWritten(): void {
    this.#acknowledged += 1;
    this.#regions.anyWritten(this.#acknowledged);
  }

  /** A flush begins. Returns what it covers; hand it to `flushed` when it has succeeded. */
  flushBegins(): number {
    this.#flushBegan = this.#acknowledged;
    return this.#acknowledged;
  }

  flushed(mark: number): void {
    if (mark > this.#flushed) this.#flushed = mark;
  }

  /** Power-on or reset: the cache's content may be gone. */
  mayBeLost(): void {
    this.powerEvents += 1;
    if (this.#acknowledged > this.#flushed) this.#lost(this.#flushed);
  }

  /** A deferred error: some write acknowledged earlier has failed, whatever was known of caches. */
  isLost(): void {
    this.powerEvents += 1;
    this.#lost(this.#flushed);
  }

  /** A process before this one knew of a loss and did not tell everybody. */
  wasLostBefore(): void {
    this.#lost(BEFORE_ALL);
  }

  /** True when the client's flush has to fail: the client is told of a loss by it. */
  flushTells(owner: BlockRequestOwner): boolean {
    const tells = this.debts.pay(owner, this.#flushBegan);
    if (tells) this.#flushBegan = this.#acknowledged;
    return tells;
  }

  #firstWrite(): void {
    this.#isWritten = true;
    this.#hooks.firstWrite();
  }

  #lost(number: number): void {
    this.#flushed = this.#acknowledged;
    this.losses += 1;
    this.debts.lost(number);
  }
}
