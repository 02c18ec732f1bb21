/** Framing of the requests of one NBD connection, over received slabs; payload is not copied. */
import { invariant } from '../base/errors.js';
import { viewOf } from '../base/view.js';
import {
  decodeRequest,
  NBD_CMD,
  NBD_REQUEST_BYTES,
  NbdProtocolError,
  NbdRequestHeader,
} from './wire.js';

/** What `NbdRequestReader.next` found. */
export const NBD_READ_STEP = {
  /** All fed bytes are consumed. */
  NEED: 0,
  /** `header` is complete; payload pieces, if any, and END follow. */
  REQUEST: 1,
  /** `fragmentOffset`, `fragmentLength`: the next piece of a WRITE's payload in the fed slab. */
  PAYLOAD: 2,
  /** The request is complete, with or without payload. Every REQUEST is followed by one END. */
  END: 3,
} as const;

/** "Size constraints": payload up to 2^25 bytes should be served to every client. */
const PAYLOAD_BYTES_MAX = 1 << 25;

/** Payload over this is taken for a denial of service ("Size constraints") and not even skipped. */
const SKIPPED_PAYLOAD_BYTES_MAX = 1 << 26;

const EMPTY = Buffer.alloc(0);

/** Where the reader stands: before or in a header, in a payload, or before an END. */
const PHASE = { HEADER: 0, PAYLOAD: 1, SKIP: 2, END: 3 } as const;

/**
 * Finds requests and the pieces of their payload in the bytes of one connection. The caller feeds
 * what it received and pulls with `next` until NEED. Nothing is allocated per request.
 */
export class NbdRequestReader {
  /** The current request, from its REQUEST until the next one. */
  readonly header = new NbdRequestHeader();
  /** Longest WRITE payload that is handed out, in bytes. */
  readonly payloadBytesMax: number;
  /** Slab that was fed last; PAYLOAD pieces lie in it. */
  slab = -1;
  /** Offset in the slab and length of the piece that PAYLOAD reports, in bytes. */
  fragmentOffset = 0;
  fragmentLength = 0;

  #phase: number = PHASE.HEADER;
  #buffer: Buffer = EMPTY;
  #view: DataView = viewOf(EMPTY);
  #at = 0;
  #end = 0;
  /** Start of a header whose rest has not come yet. */
  readonly #scratch = Buffer.alloc(NBD_REQUEST_BYTES);
  readonly #scratchView = viewOf(this.#scratch);
  #scratchBytes = 0;
  #payloadLeft = 0;

  constructor(payloadBytesMax: number = PAYLOAD_BYTES_MAX) {
    this.payloadBytesMax = payloadBytesMax;
  }

  /**
   * Gives the reader bytes `start … end` of slab `slab`, whose memory is `buffer`, once all bytes
   * fed before are consumed. The reader keeps no reference to the slab: the caller holds it until
   * NEED, and retains it for the pieces it wants to keep.
   */
  feed(slab: number, buffer: Buffer, start: number, end: number): void {
    invariant(this.#at === this.#end, 'bytes fed before the last ones were consumed');
    invariant(start >= 0 && start <= end && end <= buffer.length, 'fed bytes outside the slab');
    this.slab = slab;
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#view = viewOf(buffer);
    }
    this.#at = start;
    this.#end = end;
  }

  /**
   * The next `NBD_READ_STEP`. The payload of a request with `header.tooLong` is skipped: END comes
   * after it with no PAYLOAD. Throws NbdProtocolError on a wrong magic or a payload over 64 MiB;
   * the connection is then of no more use.
   */
  next(): number {
    switch (this.#phase) {
      case PHASE.HEADER:
        return this.#readHeader();
      case PHASE.PAYLOAD:
        return this.#readPayload();
      case PHASE.SKIP:
        return this.#skipPayload();
      default:
        this.#phase = PHASE.HEADER;
        return NBD_READ_STEP.END;
    }
  }

  #readHeader(): number {
    const available = this.#end - this.#at;
    if (this.#scratchBytes === 0 && available >= NBD_REQUEST_BYTES) {
      const known = decodeRequest(this.#view, this.#at, this.header);
      this.#at += NBD_REQUEST_BYTES;
      return this.#startRequest(known);
    }
    const take = Math.min(NBD_REQUEST_BYTES - this.#scratchBytes, available);
    this.#buffer.copy(this.#scratch, this.#scratchBytes, this.#at, this.#at + take);
    this.#at += take;
    this.#scratchBytes += take;
    if (this.#scratchBytes < NBD_REQUEST_BYTES) return this.#need();
    this.#scratchBytes = 0;
    return this.#startRequest(decodeRequest(this.#scratchView, 0, this.header));
  }

  #startRequest(known: boolean): number {
    if (!known) throw new NbdProtocolError('Request message', 'request with a wrong magic number');
    const header = this.header;
    if (header.type !== NBD_CMD.WRITE || header.length === 0) {
      this.#phase = PHASE.END;
      return NBD_READ_STEP.REQUEST;
    }
    if (header.length > SKIPPED_PAYLOAD_BYTES_MAX) {
      throw new NbdProtocolError(
        'Size constraints',
        `write of ${header.length} bytes, over ${SKIPPED_PAYLOAD_BYTES_MAX}`,
      );
    }
    this.#payloadLeft = header.length;
    header.tooLong = header.length > this.payloadBytesMax;
    this.#phase = header.tooLong ? PHASE.SKIP : PHASE.PAYLOAD;
    return NBD_READ_STEP.REQUEST;
  }

  #readPayload(): number {
    const take = Math.min(this.#payloadLeft, this.#end - this.#at);
    if (take === 0) return this.#need();
    this.fragmentOffset = this.#at;
    this.fragmentLength = take;
    this.#at += take;
    this.#payloadLeft -= take;
    if (this.#payloadLeft === 0) this.#phase = PHASE.END;
    return NBD_READ_STEP.PAYLOAD;
  }

  #skipPayload(): number {
    const take = Math.min(this.#payloadLeft, this.#end - this.#at);
    this.#at += take;
    this.#payloadLeft -= take;
    if (this.#payloadLeft > 0) return this.#need();
    this.#phase = PHASE.HEADER;
    return NBD_READ_STEP.END;
  }

  #need(): number {
    this.#at = 0;
    this.#end = 0;
    return NBD_READ_STEP.NEED;
  }
}
