import type { BlockRequestOwner, ByteRange } from './block-device.js';
import type { WrittenRegions } from './written-regions.js';

/** Flushes of one client that fail for one loss at most, however many partitions its disk has. */
const FAILED_FLUSHES_MAX = 32;

/** The loss that is not reported to a client yet. */
type Debt = {
  /** Partitions whose users need a report; null until it is asked which there are. */
  unpaid: ByteRange[] | null;
  failuresLeft: number;
};

/**
 * The clients to which a loss of acknowledged writes must be reported. A flush that fails is the
 * only way to tell, and it tells one user: so each client owes one failed flush, whichever client
 * wrote, because a program may write on one connection and flush on another (CAN_MULTI_CONN). A
 * client that comes after a loss owes one too while the loss is not reported to any client.
 *
 * The kernel is one client for the users of all partitions of its device, and a flush does not say
 * whose it is. So it owes one for each partition that had writes to lose. The user of a partition
 * that was written to since the flush before is the most probable one; if that one owes nothing
 * any more, another one's debt is paid, so that this has an end.
 */
export class LossDebts {
  /** Clients that are connected. */
  readonly #clients = new Map<BlockRequestOwner, Debt | null>();
  readonly #regions: WrittenRegions;
  readonly #onChanged: (isUntold: boolean) => void;
  #owing = 0;
  /** There was a loss that is not reported to any client. */
  #isUnheard = false;
  #wasUntold = false;
  /** Writes with a number over this are, or may be, lost. */
  #lostAfter = 0;

  constructor(regions: WrittenRegions, onChanged: (isUntold: boolean) => void) {
    this.#regions = regions;
    this.#onChanged = onChanged;
  }

  /** A loss must still be reported, be it a client that is yet to come. */
  get isUntold(): boolean {
    return this.#isUnheard || this.#owing > 0;
  }

  clientCame(owner: BlockRequestOwner): void {
    // The kernel reads the partition table later, through this very client.
    const debt = { unpaid: null, failuresLeft: FAILED_FLUSHES_MAX };
    this.#clients.set(owner, this.#isUnheard ? debt : null);
    if (this.#isUnheard) this.#owing += 1;
  }

  /**
   * The client's debt goes with it. That of a kernel device does not: the users of its partitions
   * may still be there for another connection, or another process.
   */
  clientGone(owner: BlockRequestOwner): void {
    const debt = this.#clients.get(owner) ?? null;
    this.#clients.delete(owner);
    if (debt === null) return;
    this.#owing -= 1;
    if (owner.partitions !== undefined) this.#isUnheard = true;
    this.#tellChange();
  }

  /** Acknowledged writes with a number over `number` are lost. */
  lost(number: number): void {
    this.#lostAfter = this.isUntold ? Math.min(this.#lostAfter, number) : number;
    this.#isUnheard = true;
    this.#owing = this.#clients.size;
    for (const owner of this.#clients.keys()) {
      const unpaid = this.#hitPartitions(owner);
      this.#clients.set(owner, { unpaid, failuresLeft: FAILED_FLUSHES_MAX });
    }
    this.#tellChange();
  }

  /**
   * True when a flush of the client has to fail, which then tells it. `sinceNumber` is that of the
   * last write before the flush before this one.
   */
  pay(owner: BlockRequestOwner, sinceNumber: number): boolean {
    if (!this.isUntold || owner.isGone) return false;
    const debt = this.#clients.get(owner);
    // Who never said that it came has come now.
    const owes = debt === undefined ? this.#isUnheard : debt !== null;
    if (!owes) return false;
    this.#isUnheard = false;
    if (debt && this.#isPaid(owner, debt, sinceNumber)) {
      this.#clients.set(owner, null);
      this.#owing -= 1;
    }
    this.#tellChange();
    return true;
  }

  /** Pays for one flush; true when nothing is left. */
  #isPaid(owner: BlockRequestOwner, debt: Debt, sinceNumber: number): boolean {
    debt.unpaid ??= this.#hitPartitions(owner);
    debt.failuresLeft -= 1;
    const probable = debt.unpaid.findIndex((partition) =>
      this.#regions.isWrittenSince(partition, sinceNumber),
    );
    debt.unpaid.splice(Math.max(0, probable), 1);
    return debt.unpaid.length === 0 || debt.failuresLeft === 0;
  }

  /** Partitions that had writes to lose; all of them where that is not known. */
  #hitPartitions(owner: BlockRequestOwner): ByteRange[] {
    const all = owner.partitions?.() ?? [];
    const hit = all.filter((each) => this.#regions.isWrittenSince(each, this.#lostAfter));
    return hit.length > 0 ? hit : [...all];
  }

  #tellChange(): void {
    if (this.#wasUntold === this.isUntold) return;
    this.#wasUntold = this.isUntold;
    this.#onChanged(this.#wasUntold);
  }
}
