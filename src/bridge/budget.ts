/** Replies that may wait for clients that do not read, of all clients together. */
const UNSENT_BYTES_MAX = 256 << 20;

/**
 * Bytes that may wait for the link to the target. Its socket takes what the network can carry, so
 * reading more from clients would only move their data out of the processor's cache. Two receipts
 * fit, which leave together at the end of a turn.
 */
const BACKLOG_BYTES_MAX = 2 << 20;

/**
 * Requests and bytes that all clients of one session may have under way, held ones included.
 * Beyond it clients are not read: back-pressure, never an error (INTERFACE.md, "Semantics").
 */
export class Budget {
  readonly requestsMax: number;
  bytesMax: number;
  requests = 0;
  bytes = 0;
  /** Reply bytes queued and not yet taken by the clients' sockets; each client notes its own. */
  unsentBytes = 0;
  readonly #memory: { readonly isScarce: boolean };
  /** Bytes queued for the target that the link has not taken; `backlogChanged` follows. */
  backlogBytes: () => number = () => 0;
  readonly #waiting = new Set<() => void>();
  #resuming = false;

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

  /**
   * True when one more request may begin; the last one may go over the maximum in bytes. A single
   * request may begin whatever the memory: else nobody's end would make room for the next.
   */
  get hasRoom(): boolean {
    return (
      this.requests < this.requestsMax &&
      this.bytes < this.bytesMax &&
      (this.requests === 0 || !this.#memory.isScarce) &&
      this.backlogBytes() < BACKLOG_BYTES_MAX
    );
  }

  /** True while the clients' unread replies are within bounds. */
  get hasRoomForReplies(): boolean {
    return this.unsentBytes < UNSENT_BYTES_MAX;
  }

  /** Another maximum of bytes; clients that wait for room get what there is more now. */
  limitBytes(bytesMax: number): void {
    this.bytesMax = bytesMax;
    this.#resume();
  }

  /** The link has taken all that was queued for the target, or may be another one now. */
  backlogChanged(): void {
    this.#resume();
  }

  /** Clients that wait for room. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  take(bytes: number): void {
    this.requests += 1;
    this.bytes += bytes;
  }

  give(bytes: number): void {
    this.requests -= 1;
    this.bytes -= bytes;
    this.#resume();
  }

  /** Calls `resume` once when there is room again; clients are served in turn. */
  whenRoom(resume: () => void): void {
    this.#waiting.add(resume);
  }

  /** The client that gave `resume` is gone. */
  forget(resume: () => void): void {
    this.#waiting.delete(resume);
  }

  #resume(): void {
    if (this.#waiting.size === 0 || this.#resuming) return;
    this.#resuming = true;
    // Those who find no room queue up again behind the others, so this round has an end.
    for (let left = this.#waiting.size; left > 0 && this.hasRoom; left -= 1) {
      const [resume] = this.#waiting;
      if (resume === undefined) break;
      this.#waiting.delete(resume);
      resume();
    }
    this.#resuming = false;
  }
}
