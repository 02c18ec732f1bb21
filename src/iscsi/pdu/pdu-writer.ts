import type { Fragments } from '../../base/fragments.js';
import type { SendQueue } from '../../base/send-queue.js';
import { crc32cOf, crc32cOfSlice } from './digest.js';
import { BHS_BYTES, DIGEST_BYTES, paddingBytes } from './pdu.js';
import type { SessionParameters } from './session-parameters.js';

/**
 * Puts initiator PDUs on a send queue: the header goes into the queue's own memory, payload is
 * referenced, padding and digests (RFC 7143 §11.2.3 (Header Digest and Data Digest)) are added.
 *
 * Use: `const at = writer.begin(); writeX(writer.out, at, …); writer.end(); writer.data…`.
 */
export class PduWriter {
  readonly queue: SendQueue;
  headerDigest = false;
  dataDigest = false;

  constructor(queue: SendQueue) {
    this.queue = queue;
  }

  /** The login is over: digests hold from the next PDU on. */
  agreed(parameters: SessionParameters): void {
    this.headerDigest = parameters.headerDigest === 'CRC32C';
    this.dataDigest = parameters.dataDigest === 'CRC32C';
  }

  /** Offset in `out` at which a header may be written. */
  begin(): number {
    return this.queue.reserve(BHS_BYTES + DIGEST_BYTES);
  }

  get out(): DataView {
    return this.queue.headerView;
  }

  /** Queues the header written at `at`, with its digest when negotiated. */
  end(at: number): void {
    if (!this.headerDigest) {
      this.queue.commit(BHS_BYTES);
      return;
    }
    const crc = crc32cOf(this.queue.headerBuffer, at, at + BHS_BYTES, 0);
    this.out.setInt32(at + BHS_BYTES, crc, true);
    this.queue.commit(BHS_BYTES + DIGEST_BYTES);
  }

  /** Queues bytes `start … start+length` of `payload` as the data segment of the PDU just ended. */
  dataSlice(payload: Fragments, start: number, length: number): void {
    if (length === 0) return;
    this.queue.pushSlice(payload, start, length);
    const crc = this.dataDigest ? crc32cOfSlice(payload, start, length) : 0;
    this.#trailer(length, crc);
  }

  /** Queues a copy of `bytes` as the data segment; for text and other control data. */
  dataCopy(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.queue.pushCopy(bytes);
    this.#trailer(bytes.length, this.dataDigest ? crc32cOf(bytes, 0, bytes.length, 0) : 0);
  }

  #trailer(dataLength: number, dataCrc: number): void {
    const padding = paddingBytes(dataLength);
    const length = padding + (this.dataDigest ? DIGEST_BYTES : 0);
    if (length === 0) return;
    const at = this.queue.reserve(length);
    const out = this.queue.headerBuffer;
    if (padding > 0) out.fill(0, at, at + padding);
    if (this.dataDigest) {
      const crc = padding > 0 ? crc32cOf(out, at, at + padding, dataCrc) : dataCrc;
      this.out.setInt32(at + padding, crc, true);
    }
    this.queue.commit(length);
  }
}
