import type { BlockRequest } from './block-device.js';
import type { Budget } from './budget.js';

/**
 * What one client has of the memory that replies take: reads under way, whose bytes will come, and
 * replies that its socket has not taken.
 */
export class ReplyShare {
  readonly #session: Budget;
  readonly #resume: () => void;
  #readBytes = 0;
  #unsentBytes = 0;

  /** `resume` is called when there may be room for what `take` has refused. */
  constructor(session: Budget, resume: () => void) {
    this.#session = session;
    this.#resume = resume;
  }

  /** Room for the reply of a read; false without any. */
  take(request: BlockRequest): boolean {
    const bytes = request.lengthBytes;
    if (!this.#session.hasRoomForReply(bytes, this.#readBytes + this.#unsentBytes)) {
      this.#session.whenReplied(this.#resume);
      return false;
    }
    request.replyBytes = bytes;
    this.#readBytes += bytes;
    this.#session.replyBytes += bytes;
    return true;
  }

  /** A request has ended; its reply, if there is one, is not queued yet. */
  ended(request: BlockRequest): void {
    const bytes = request.replyBytes;
    if (bytes === 0) return;
    request.replyBytes = 0;
    this.#readBytes -= bytes;
    this.#session.replyBytes -= bytes;
  }

  /** Bytes that are queued for the client now. */
  queued(unsentBytes: number): void {
    const more = unsentBytes - this.#unsentBytes;
    this.#unsentBytes = unsentBytes;
    this.#session.replyBytes += more;
    if (more < 0) this.#session.replied();
  }

  /** The client is gone; what it has under way ends later. */
  clientGone(): void {
    this.#session.forgetReply(this.#resume);
    this.queued(0);
  }
}
