import type { SendQueue } from '../../base/send-queue.js';
import { brokenRule } from '../quirks/quirks.js';

/** Answers to pings that may wait in our send queue: far more than a sane target asks for. */
const PONGS_QUEUED_MAX = 1024;

/**
 * Bounds the answers to NOP-In pings of a target that asks without reading: they are counted until
 * the first of them has left, however long the data before it takes.
 */
export class NopReplyLimit {
  readonly #queue: SendQueue;
  #count = 0;
  /** Value of the queue's `queuedBytesTotal` behind the first answer of the count. */
  #endsAtByte = 0;

  constructor(queue: SendQueue) {
    this.#queue = queue;
  }

  /** Notes an answer that has just been queued. Throws ProtocolError when there are too many. */
  queued(): void {
    const { queuedBytesTotal, byteLength } = this.#queue;
    if (queuedBytesTotal - byteLength >= this.#endsAtByte) {
      this.#count = 0;
      this.#endsAtByte = queuedBytesTotal;
    }
    this.#count += 1;
    if (this.#count > PONGS_QUEUED_MAX) {
      throw brokenRule('nop-in-flood', 'the target sends pings and does not read the answers');
    }
  }
}
