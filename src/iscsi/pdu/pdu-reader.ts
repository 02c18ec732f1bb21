import type { SlabPool } from '../../base/slab.js';
import { viewOf } from '../../base/view.js';
import { brokenRule } from '../quirks/quirks.js';
import { crc32cOf } from './digest.js';
import { AHS_BYTES_MAX, BHS_BYTES, DIGEST_BYTES, paddingBytes } from './pdu.js';
import type { SessionParameters } from './session-parameters.js';

/** What `PduReader.next` found. */
export const PduEvent = {
  /** Every byte fed has been used; feed more. */
  need: 0,
  /** A header is complete: `header` and `headerAt` say where. Its data, if any, follows. */
  header: 1,
  /** A piece of the data segment: `pieceAt` and `pieceLength` in the buffer that was fed. */
  data: 2,
  /** The PDU is complete with padding and digests; `dataDigestFailed` says whether data is good. */
  end: 3,
} as const;

const Stage = { header: 0, data: 1, trailer: 2, end: 3 } as const;

/**
 * Cuts the byte stream of a connection into PDUs (RFC 7143 §11.2 (PDU Template, Header, and
 * Opcodes)) without copying: headers are read where they lie, only one that straddles two feeds
 * is gathered. Bounds: DataSegmentLength at most `dataSegmentBytesMax` (what we declared), AHS at
 * most 1020 bytes.
 */
export class PduReader {
  header: Buffer = Buffer.alloc(0);
  headerView: DataView = viewOf(this.header);
  headerAt = 0;
  pieceAt = 0;
  pieceLength = 0;
  dataDigestFailed = false;
  headerDigest = false;
  dataDigest = false;
  /** Longest data segment let through, in bytes. */
  dataSegmentBytesMax: number;
  /** Bytes fed so far, and PDUs that have ended in them. */
  fedBytes = 0;
  pdusEnded = 0;

  readonly #scratch = Buffer.alloc(BHS_BYTES + AHS_BYTES_MAX + DIGEST_BYTES);
  readonly #scratchView = viewOf(this.#scratch);
  #scratchLength = 0;
  readonly #pool: SlabPool;
  #slab = -1;
  #buffer: Buffer = Buffer.alloc(0);
  #view: DataView = viewOf(this.#buffer);
  #at = 0;
  #end = 0;
  #stage: number = Stage.header;
  #dataLength = 0;
  #dataLeft = 0;
  #crc = 0;
  /** Padding and digest bytes that follow the data, and how many of them have been seen. */
  #trailerLength = 0;
  #trailerSeen = 0;
  readonly #trailer = Buffer.alloc(3 + DIGEST_BYTES);
  readonly #trailerView = viewOf(this.#trailer);

  constructor(pool: SlabPool, dataSegmentBytesMax: number) {
    this.#pool = pool;
    this.dataSegmentBytesMax = dataSegmentBytesMax;
  }

  /** The login is over: digests and the length we declared hold from the next PDU on. */
  agreed(parameters: SessionParameters): void {
    this.headerDigest = parameters.headerDigest === 'CRC32C';
    this.dataDigest = parameters.dataDigest === 'CRC32C';
    this.dataSegmentBytesMax = parameters.initiatorMaxRecvDataSegmentLength;
  }

  /** Gives bytes `start…end` of slab `slab`, which must stay as they are until `need`. */
  feed(slab: number, buffer: Buffer, start: number, end: number): void {
    this.#slab = slab;
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#view = viewOf(buffer);
    }
    this.#at = start;
    this.#end = end;
    this.fedBytes += end - start;
  }

  /**
   * Bytes that are missing of a PDU that has begun, as far as its header says; 0 between two PDUs.
   * Meaningful once `next` has said `need`.
   */
  get missingBytes(): number {
    switch (this.#stage) {
      case Stage.header:
        return this.#scratchLength === 0 ? 0 : this.#wantedHeaderBytes - this.#scratchLength;
      case Stage.data:
        return (
          this.#dataLeft + paddingBytes(this.#dataLength) + (this.dataDigest ? DIGEST_BYTES : 0)
        );
      case Stage.trailer:
        return this.#trailerLength - this.#trailerSeen;
      default:
        return 0;
    }
  }

  /** Of the header that is gathered: all of it once its first 48 bytes say how long it is. */
  get #wantedHeaderBytes(): number {
    return this.#scratchLength < BHS_BYTES ? BHS_BYTES : this.#headerLength(this.#scratch, 0);
  }

  /** The next event of `PduEvent`. Throws ProtocolError on a malformed or damaged header. */
  next(): number {
    switch (this.#stage) {
      case Stage.header:
        return this.#readHeader();
      case Stage.data:
        return this.#readData();
      case Stage.trailer:
        return this.#readTrailer();
      default:
        return this.#endPdu();
    }
  }

  #readHeader(): number {
    const available = this.#end - this.#at;
    if (available === 0) return PduEvent.need;
    if (this.#scratchLength === 0 && available >= BHS_BYTES) {
      const length = this.#headerLength(this.#buffer, this.#at);
      if (available >= length) {
        this.#beginPdu(this.#buffer, this.#view, this.#at, length);
        this.#at += length;
        return PduEvent.header;
      }
    }
    return this.#gatherHeader();
  }

  #gatherHeader(): number {
    for (;;) {
      const wanted = this.#wantedHeaderBytes;
      if (this.#scratchLength >= wanted && this.#scratchLength >= BHS_BYTES) {
        this.#scratchLength = 0;
        this.#beginPdu(this.#scratch, this.#scratchView, 0, wanted);
        return PduEvent.header;
      }
      const take = Math.min(wanted - this.#scratchLength, this.#end - this.#at);
      if (take === 0) return PduEvent.need;
      this.#buffer.copy(this.#scratch, this.#scratchLength, this.#at, this.#at + take);
      this.#scratchLength += take;
      this.#at += take;
    }
  }

  /** BHS, AHS and header digest of the header at `at`. */
  #headerLength(buffer: Buffer, at: number): number {
    const ahsBytes = (buffer[at + 4] ?? 0) * 4;
    return BHS_BYTES + ahsBytes + (this.headerDigest ? DIGEST_BYTES : 0);
  }

  #beginPdu(buffer: Buffer, view: DataView, at: number, length: number): void {
    if (this.headerDigest) {
      const covered = at + length - DIGEST_BYTES;
      if (crc32cOf(buffer, at, covered, 0) !== view.getInt32(covered, true)) {
        throw brokenRule('header-digest', 'the header digest of a PDU does not match', {
          code: 'ERR_HEADER_DIGEST',
        });
      }
    }
    const dataLength = view.getUint32(at + 4) & 0xffffff;
    if (dataLength > this.dataSegmentBytesMax) {
      throw brokenRule(
        'segment-size',
        `DataSegmentLength ${dataLength} is over the ${this.dataSegmentBytesMax} bytes we declared`,
      );
    }
    this.header = buffer;
    this.headerView = view;
    this.headerAt = at;
    this.#dataLength = dataLength;
    this.#dataLeft = dataLength;
    this.dataDigestFailed = false;
    this.#crc = 0;
    this.#stage = dataLength === 0 ? Stage.end : Stage.data;
  }

  #readData(): number {
    const available = this.#end - this.#at;
    if (available === 0) return PduEvent.need;
    const take = available < this.#dataLeft ? available : this.#dataLeft;
    this.pieceAt = this.#at;
    this.pieceLength = take;
    this.#at += take;
    this.#dataLeft -= take;
    if (this.dataDigest) {
      this.#crc = this.#pool.crc32c(this.#slab, this.pieceAt, take, this.#crc);
    }
    if (this.#dataLeft === 0) {
      const padding = paddingBytes(this.#dataLength);
      this.#trailerLength = padding + (this.dataDigest ? DIGEST_BYTES : 0);
      this.#trailerSeen = 0;
      this.#stage = this.#trailerLength === 0 ? Stage.end : Stage.trailer;
    }
    return PduEvent.data;
  }

  #readTrailer(): number {
    if (this.#trailerSeen === 0 && this.#end - this.#at >= this.#trailerLength) {
      this.#checkData(this.#buffer, this.#view, this.#at);
      this.#at += this.#trailerLength;
    } else {
      const take = Math.min(this.#trailerLength - this.#trailerSeen, this.#end - this.#at);
      this.#buffer.copy(this.#trailer, this.#trailerSeen, this.#at, this.#at + take);
      this.#trailerSeen += take;
      this.#at += take;
      if (this.#trailerSeen < this.#trailerLength) return PduEvent.need;
      this.#checkData(this.#trailer, this.#trailerView, 0);
    }
    return this.#endPdu();
  }

  #endPdu(): number {
    this.#stage = Stage.header;
    this.pdusEnded += 1;
    return PduEvent.end;
  }

  /** The data against padding and digest at `at`. */
  #checkData(buffer: Buffer, view: DataView, at: number): void {
    if (!this.dataDigest) return;
    const digestAt = at + this.#trailerLength - DIGEST_BYTES;
    const crc = digestAt > at ? crc32cOf(buffer, at, digestAt, this.#crc) : this.#crc;
    this.dataDigestFailed = crc !== view.getInt32(digestAt, true);
  }
}
