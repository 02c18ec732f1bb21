import { ProtocolError } from '../base/errors.js';
import { dataSegmentLength, HEADER_BYTES, type Pdu, padding } from './codec.js';
import { targetCrc32c } from './crc32c.js';

const DIGEST_BYTES = 4;

/**
 * Cuts a byte stream into PDUs (RFC 7143 §11.1 (iSCSI PDU Length and Padding)). Bytes that hold a
 * whole PDU are shared with it; a PDU in pieces is gathered once in a buffer of its own size.
 */
export class FrameReader {
  headerDigest = false;
  dataDigest = false;
  /** The largest data segment accepted: what the target declared, 8192 before that. */
  dataSegmentBytesMax = 8192;
  #gathered: Buffer = Buffer.alloc(HEADER_BYTES);
  #filled = 0;
  #wanted = HEADER_BYTES;

  /**
   * Gives each whole PDU in `bytes` to `take`, which says whether to go on. The reader's digest
   * settings may change inside `take` and count from the next PDU.
   * @throws ProtocolError for a header digest mismatch or an oversized data segment.
   */
  push(bytes: Uint8Array, take: (pdu: Pdu) => boolean): void {
    const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < input.length) {
      if (this.#filled === 0 && input.length - at >= HEADER_BYTES) {
        const total = this.#pduBytes(input.subarray(at, at + HEADER_BYTES));
        if (input.length - at >= total) {
          const whole = input.subarray(at, at + total);
          at += total;
          if (!take(this.#open(whole))) return;
          continue;
        }
      }
      at = this.#gather(input, at);
      if (this.#filled < this.#wanted) return;
      const whole = this.#gathered;
      this.#gathered = Buffer.alloc(HEADER_BYTES);
      this.#filled = 0;
      this.#wanted = HEADER_BYTES;
      if (!take(this.#open(whole))) return;
    }
  }

  #gather(input: Buffer, start: number): number {
    let at = start;
    for (;;) {
      const size = Math.min(this.#wanted - this.#filled, input.length - at);
      input.copy(this.#gathered, this.#filled, at, at + size);
      this.#filled += size;
      at += size;
      if (this.#filled !== HEADER_BYTES || this.#wanted !== HEADER_BYTES) return at;
      const total = this.#pduBytes(this.#gathered);
      if (total === HEADER_BYTES) return at;
      const whole = Buffer.allocUnsafe(total);
      this.#gathered.copy(whole, 0, 0, HEADER_BYTES);
      this.#gathered = whole;
      this.#wanted = total;
    }
  }

  /** Length of the PDU on the wire, with digests and padding. */
  #pduBytes(header: Buffer): number {
    const length = dataSegmentLength(header);
    if (length > this.dataSegmentBytesMax) {
      throw new ProtocolError(
        '13.12',
        `data segment of ${length} bytes, declared maximum ${this.dataSegmentBytesMax}`,
      );
    }
    const ahsBytes = (header[4] ?? 0) * 4;
    const headerDigest = this.headerDigest ? DIGEST_BYTES : 0;
    const dataDigest = this.dataDigest && length > 0 ? DIGEST_BYTES : 0;
    return HEADER_BYTES + ahsBytes + headerDigest + length + padding(length) + dataDigest;
  }

  #open(whole: Buffer): Pdu {
    const header = whole.subarray(0, HEADER_BYTES);
    const headersEnd = HEADER_BYTES + (header[4] ?? 0) * 4;
    let dataStart = headersEnd;
    if (this.headerDigest) {
      dataStart += DIGEST_BYTES;
      if (targetCrc32c(whole.subarray(0, headersEnd)) !== whole.readUInt32LE(headersEnd)) {
        throw new ProtocolError('7.8', 'header digest does not match');
      }
    }
    const length = dataSegmentLength(header);
    const dataEnd = dataStart + length + padding(length);
    const dataDigestGood =
      !this.dataDigest ||
      length === 0 ||
      targetCrc32c(whole.subarray(dataStart, dataEnd)) === whole.readUInt32LE(dataEnd);
    return {
      header,
      ahs: whole.subarray(HEADER_BYTES, headersEnd),
      data: whole.subarray(dataStart, dataStart + length),
      dataDigestGood,
    };
  }
}
