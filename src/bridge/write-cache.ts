import type { BlockRequest, BlockRequestOwner } from './block-device.js';
import { LossDebts } from './loss-debts.js';
import type { RecoveredWrites } from './retained/retained-memory.js';
import type { RetainedWrites } from './retained/retained-writes.js';
import type { ScsiDiskHooks } from './scsi-disk-hooks.js';
import { WrittenRegions } from './written-regions.js';

/** What a client learns when acknowledged writes are gone. */
export const CACHE_LOST = 'the disk lost acknowledged writes that were not yet flushed';

function isReplayDue(retained: RetainedWrites | null): boolean {
  return retained !== null && retained.replayReason !== null;
}

/** A number below that of any write. */
const BEFORE_ALL = -1;

/**
 * The rule about a volatile write cache (docs/block-semantics.md, "A write cache that is lost"):
 * when the disk says that it lost power, or that an acknowledged write failed, and there are
 * acknowledged writes that no flush covered, a flush of each client has to fail (`LossDebts` says
 * whose); so has every flush that is under way at that moment, because it is unknown whether
 * the disk ran it before or after.
 *
 * Writes that are retained are not lost by that: they have to be written again.
 */
export class WriteCacheWatch {
  readonly debts: LossDebts;
  readonly retained: RetainedWrites | null;
  readonly #regions: WrittenRegions;
  readonly #hooks: Pick<ScsiDiskHooks, 'firstWrite' | 'lossChanged'>;
  #isWritten = false;
  #isLossNoted = false;
  #acknowledged = 0;
  #flushed = 0;
  /** Acknowledged writes when the last flush began. */
  #flushBegan = 0;
  /** Acknowledged writes up to this number are not all retained. */
  #notRetained = BEFORE_ALL;
  /** Times the cache may have been emptied, whether or not that lost anything. */
  powerEvents = 0;
  /** Times acknowledged writes were lost. */
  losses = 0;

  constructor(
    sizeBytes: number,
    hooks: Pick<ScsiDiskHooks, 'firstWrite' | 'lossChanged'>,
    retained: RetainedWrites | null = null,
  ) {
    this.#hooks = hooks;
    this.retained = retained;
    this.#regions = new WrittenRegions(sizeBytes);
    this.debts = new LossDebts(this.#regions, () => this.#noteLoss());
  }

  /** A request that changes the disk is about to be acknowledged to its client. */
  changed(request: BlockRequest, isCached: boolean): void {
    const { retained } = this;
    if (!request.writes) {
      retained?.forget(request, this.#acknowledged);
      return;
    }
    if (request.fua || !(isCached || retained?.isAlways === true)) {
      retained?.supersede(request, this.#acknowledged);
      return;
    }
    if (!this.#isWritten) this.#firstWrite();
    this.#acknowledged += 1;
    this.#regions.written(request.offsetBytes, request.lengthBytes, this.#acknowledged);
    retained?.keep(request, this.#acknowledged);
  }

  /**
   * The disk has done the request, and it does not count: its cache was emptied meanwhile. A part
   * of it may be gone although the rest goes on; a read, or a flush, may have met what was left.
   */
  mayBeUndone(request: BlockRequest): boolean {
    if (request.powerEventsBefore === this.powerEvents || request.isReplay) return false;
    if (request.writes) return request.partsIssued > 1 || request.fua;
    return request.operation === 'read' && isReplayDue(this.retained);
  }

  /** The write has ended, unless a flush follows: it needs no room any more. */
  endsRetaining(request: BlockRequest): void {
    const { retained } = this;
    const hasFailed = request.errno !== null || request.wasLost;
    if (request.flushAfterwards && !hasFailed) return;
    retained?.giveRoom(request);
    if (hasFailed) retained?.roomFound();
  }

  /** A flush that succeeds now does not cover what it should. */
  isVoid({ isReplay, powerEventsBefore }: BlockRequest): boolean {
    const isLate = powerEventsBefore !== this.powerEvents && !isReplay;
    return isLate && isReplayDue(this.retained);
  }

  /** A process before this one may have had writes acknowledged, anywhere. */
  mayHaveBeenWritten(): void {
    this.#acknowledged += 1;
    this.#regions.anyWritten(this.#acknowledged);
    this.#someNotRetained();
  }

  /** Processes before this one have left what they retained, all of it. */
  adopt(recovered: readonly RecoveredWrites[]): void {
    if (recovered.length === 0) return;
    this.#acknowledged += 1;
    this.#regions.anyWritten(this.#acknowledged);
    for (const each of recovered) this.retained?.adopt(each);
  }

  /** A flush begins. Returns what it covers; hand it to `flushed` when it has succeeded. */
  flushBegins(): number {
    this.#flushBegan = this.#acknowledged;
    this.retained?.flushBegins();
    return this.#acknowledged;
  }

  flushed(mark: number): void {
    if (mark > this.#flushed) this.#isFlushed(mark);
    this.retained?.flushed(mark);
  }

  /** The session was lost: it is unknown what the disk has, or a report of a loss may be lost. */
  sessionLost(): void {
    this.retained?.replayDue('sessionLost');
  }

  /** What was retained is on the medium. */
  replayed(): void {
    this.#isFlushed(this.#acknowledged);
    this.retained?.replayed();
    this.#noteLoss();
  }

  /** What is retained cannot be written down: the rule about lost writes holds. */
  retainedFailed(): void {
    this.retained?.clear();
    this.powerEvents += 1;
    this.#lost(this.#flushed);
  }

  /**
   * What is retained will not be written again. Whether it is lost the disk has to say, unless it
   * has said so already: to us, or to the process before, which did not live to write it again.
   */
  dropRetained(): void {
    const reason = this.retained?.replayReason ?? null;
    const isLost = reason === 'cacheLost' || reason === 'takenOver';
    this.retained?.clear();
    if (this.retained !== null) this.retained.keeps = false;
    if (isLost) this.#lost(this.#flushed);
    else if (this.#acknowledged > this.#flushed) this.#someNotRetained();
  }

  /** The disk serves again: what ended while it was removed is not retained. */
  retainAgain(): void {
    if (this.retained === null || this.retained.keeps) return;
    this.retained.keeps = true;
    if (this.#acknowledged > this.#flushed) this.#someNotRetained();
  }

  /** Power-on or reset: the cache's content may be gone. */
  mayBeLost(): void {
    this.powerEvents += 1;
    if (this.#acknowledged > this.#flushed && !this.#isRetained()) this.#lost(this.#flushed);
  }

  /** A deferred error: some write acknowledged earlier has failed, whatever was known of caches. */
  isLost(): void {
    this.powerEvents += 1;
    if (!this.#isRetained()) this.#lost(this.#flushed);
  }

  /** A process before this one knew of a loss and did not tell everybody. */
  wasLostBefore(): void {
    this.#lost(BEFORE_ALL);
  }

  /** True when the client's flush has to fail: it reports a loss to the client. */
  flushTells(owner: BlockRequestOwner): boolean {
    const tells = this.debts.pay(owner, this.#flushBegan);
    if (tells) this.#flushBegan = this.#acknowledged;
    return tells;
  }

  /** All that the cache may have lost is here, and is to be written again. */
  #isRetained(): boolean {
    const { retained } = this;
    if (retained === null || retained.isEmpty) return false;
    retained.replayDue('cacheLost');
    this.#noteLoss();
    return this.#flushed >= this.#notRetained;
  }

  /** Of what has been acknowledged so far not all is retained, until a flush covers it. */
  #someNotRetained(): void {
    this.#notRetained = this.#acknowledged;
    this.retained?.setWhole(false);
  }

  #isFlushed(mark: number): void {
    const wasWhole = this.#flushed >= this.#notRetained;
    this.#flushed = mark;
    if (!wasWhole && mark >= this.#notRetained) this.retained?.setWhole(true);
  }

  /**
   * What the next process has to report if this one is killed: what is lost, and what would be
   * written again if that did not end with this process. The disk says it once.
   */
  #noteLoss(): void {
    const { retained, debts } = this;
    const isDue = retained?.replayReason === 'cacheLost';
    const isLoss = debts.isUntold || (isDue && retained.endsWithUs);
    if (isLoss === this.#isLossNoted) return;
    this.#isLossNoted = isLoss;
    this.#hooks.lossChanged(isLoss);
  }

  #firstWrite(): void {
    this.#isWritten = true;
    this.#hooks.firstWrite();
  }

  #lost(number: number): void {
    this.#isFlushed(this.#acknowledged);
    this.losses += 1;
    this.debts.lost(number);
  }
}
