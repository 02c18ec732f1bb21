/** Bytes of reads under way and of replies that are not taken, of all clients together. */
const REPLY_BYTES_MAX = 192 << 20;
/** What any client may have of them although all together have too much. */
const REPLY_BYTES_ALLOWED = 1 << 20;

/**
 * Bytes that may wait for the link to the target. Its socket takes what the network can carry, so
 * reading more from clients would only move their data out of the processor's cache. Two receipts
 * fit, which leave together at the end of a turn.
 */
const BACKLOG_BYTES_MAX = 2 << 20;

/** A logical unit's part of the budget, as the budget sees it. */
export interface BudgetPart {
  readonly requests: number;
  /** Guaranteed bytes that are not used. */
  readonly bytesUnused: number;
  /** Wakes one client that waits; false where none does, or there is no room. */
  resumeOne(): boolean;
}

/**
 * Requests and bytes that all clients of one session may have under way, held ones included.
 * Beyond it clients are not read: back-pressure, never an error (docs/block-semantics.md,
 * "Bounds"). One half is guaranteed to the logical units, in equal parts; the other is for the
 * first that needs it.
 */
export class Budget {
  readonly requestsMax: number;
  bytesMax: number;
  requests = 0;
  bytes = 0;
  /** What each unit may have whatever the others have; at least one request of any size. */
  requestsGuaranteed = 1;
  bytesGuaranteed = 1;
  /** There is more than one unit; one that is alone keeps nothing free for others. */
  isShared = false;
  /** Of all guarantees, what is not used now. */
  requestsReserved = 0;
  bytesReserved = 0;
  /**
   * Bytes of reads under way, and of replies that the clients' sockets have not taken; each client
   * notes its own.
   */
  replyBytes = 0;
  /** Clients that wait for room. */
  waitingCount = 0;
  readonly #memory: { readonly isScarce: boolean };
  /** Bytes queued for the target that the link has not taken; `backlogChanged` follows. */
  backlogBytes: () => number = () => 0;
  readonly #units: BudgetPart[] = [];
  /** Place of the unit whose turn is next. */
  #turn = 0;
  #resuming = false;
  readonly #waitingToReply = new Set<() => void>();

  constructor(options: {
    readonly requestsMax: number;
    readonly bytesMax: number;
    /** What the requests' bytes lie in: many small ones may hold more of it than they have. */
    readonly memory?: { readonly isScarce: boolean };
  }) {
    this.requestsMax = options.requestsMax;
    this.bytesMax = options.bytesMax;
    this.#memory = options.memory ?? { isScarce: false };
  }

  /** One more logical unit has its part, until `leave`. */
  join(unit: BudgetPart): void {
    this.#units.push(unit);
    this.#share();
  }

  leave(unit: BudgetPart): void {
    const at = this.#units.indexOf(unit);
    if (at >= 0) this.#units.splice(at, 1);
    this.#share();
    this.resume();
  }

  /**
   * False while memory is scarce or much waits for the link, whichever unit wants more. A single
   * request may begin whatever the memory: else no request would end and make room for the next.
   */
  get mayGrow(): boolean {
    return (
      (this.requests === 0 || !this.#memory.isScarce) && this.backlogBytes() < BACKLOG_BYTES_MAX
    );
  }

  /** True if a client that has `clientBytes` of the reply bytes may ask for `bytes` more. */
  hasRoomForReply(bytes: number, clientBytes: number): boolean {
    return this.replyBytes + bytes <= REPLY_BYTES_MAX || clientBytes + bytes <= REPLY_BYTES_ALLOWED;
  }

  /** Calls `resume` once when some client's replies have become fewer. */
  whenReplied(resume: () => void): void {
    this.#waitingToReply.add(resume);
  }

  /** The client that gave `resume` is gone. */
  forgetReply(resume: () => void): void {
    this.#waitingToReply.delete(resume);
  }

  /** Some client's replies have become fewer. */
  replied(): void {
    if (this.#waitingToReply.size === 0) return;
    const waiting = [...this.#waitingToReply];
    this.#waitingToReply.clear();
    for (const resume of waiting) resume();
  }

  /** Another maximum of bytes; clients that wait for room get what there is more now. */
  limitBytes(bytesMax: number): void {
    this.bytesMax = bytesMax;
    this.#share();
    this.resume();
  }

  /** The link has taken all that was queued for the target, or may be another one now. */
  backlogChanged(): void {
    this.resume();
  }

  /**
   * Wakes clients that wait, one of each unit in turn. A unit without room is passed over, so its
   * clients do not stand before those of others.
   */
  resume(): void {
    if (this.waitingCount === 0 || this.#resuming) return;
    this.#resuming = true;
    let passedOver = 0;
    // Those who find no room queue up again behind the others, so this round has an end.
    for (let left = this.waitingCount; left > 0 && passedOver < this.#units.length; ) {
      this.#turn = (this.#turn + 1) % this.#units.length;
      if (this.#units[this.#turn]?.resumeOne() === true) {
        left -= 1;
        passedOver = 0;
      } else {
        passedOver += 1;
      }
    }
    this.#resuming = false;
  }

  /** The maximum or the number of units is another one. */
  #share(): void {
    const parts = 2 * Math.max(1, this.#units.length);
    this.requestsGuaranteed = Math.max(1, Math.floor(this.requestsMax / parts));
    this.bytesGuaranteed = Math.max(1, Math.floor(this.bytesMax / parts));
    this.requestsReserved = 0;
    this.bytesReserved = 0;
    this.isShared = this.#units.length > 1;
    if (!this.isShared) return;
    for (const unit of this.#units) {
      this.requestsReserved += Math.max(0, this.requestsGuaranteed - unit.requests);
      this.bytesReserved += unit.bytesUnused;
    }
  }
}
