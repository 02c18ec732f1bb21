/**
 * Kubelets before 1.29 or so register a plugin with the socket's path as the host (`:authority`) of
 * their requests, as other clients in Go do. RFC 9113 does not permit that, and the HTTP/2 of Node
 * refuses it before our code sees it. The host has no meaning on a unix socket, so it is
 * replaced in the bytes that arrive.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** RFC 9113, 3.4: what a client sends before its first frame. */
const PREFACE_BYTES = 24;
const FRAME_HEADER_BYTES = 9;
const HEADERS_TYPE = 1;
const PADDED_FLAG = 0x08;
const PRIORITY_FLAG = 0x20;
const PRIORITY_BYTES = 5;
/** RFC 9113, 6.5.2: a frame has no more unless we permit it, and we do not. */
const HEADERS_BYTES_MAX = 16_384;
/** RFC 7541, appendix A. */
const AUTHORITY_INDEX = 1;
/** RFC 7541, 5.2: a length, here below 127, and characters that are not compressed. */
const HOST = Buffer.from('\x09localhost', 'latin1');
/** RFC 7541, 5.1: more would be no index and no length of a frame. */
const INTEGER_SHIFT_MAX = 21;

type Read = { readonly value: number; readonly end: number };

/** The bytes of one connection, in order. */
export class AuthorityFilter {
  #pending = Buffer.alloc(0);
  /** Bytes to come that go through as they are. */
  #passing = PREFACE_BYTES;

  feed(bytes: Buffer): Buffer {
    const out: Buffer[] = [];
    let rest = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (;;) {
      const passed = rest.subarray(0, this.#passing);
      out.push(passed);
      this.#passing -= passed.length;
      rest = rest.subarray(passed.length);
      if (this.#passing > 0 || rest.length < FRAME_HEADER_BYTES) break;
      const length = rest.readUIntBE(0, 3);
      const end = FRAME_HEADER_BYTES + length;
      if (rest[3] !== HEADERS_TYPE || length > HEADERS_BYTES_MAX) {
        this.#passing = end;
        continue;
      }
      if (rest.length < end) break;
      out.push(withHost(rest.subarray(0, end)));
      rest = rest.subarray(end);
    }
    this.#pending = Buffer.from(rest);
    return Buffer.concat(out);
  }
}

/** A connection whose requests have a host that is one. */
export class FilteredConnection extends Duplex {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    const filter = new AuthorityFilter();
    socket.on('data', (bytes: Buffer) => {
      if (!this.push(filter.feed(bytes))) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(bytes: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#socket.write(bytes, done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}

/** A frame of headers with our host; one that is not well-formed stays for others to refuse. */
function withHost(frame: Buffer): Buffer {
  const flags = frame[4] ?? 0;
  if ((flags & PADDED_FLAG) !== 0) return frame;
  const from = FRAME_HEADER_BYTES + ((flags & PRIORITY_FLAG) === 0 ? 0 : PRIORITY_BYTES);
  const found = hostIn(frame, from);
  if (found === null) return frame;
  const changed = Buffer.concat([frame.subarray(0, found.value), HOST, frame.subarray(found.end)]);
  changed.writeUIntBE(changed.length - FRAME_HEADER_BYTES, 0, 3);
  return changed;
}

/** Where the value of `:authority` begins and ends in a block of RFC 7541 (6: representations). */
function hostIn(frame: Buffer, from: number): Read | null {
  let at = from;
  while (at < frame.length) {
    const first = frame[at] ?? 0;
    const isIndexed = (first & 0x80) !== 0;
    const isSize = (first & 0xe0) === 0x20;
    const bits = isIndexed ? 7 : isSize ? 5 : (first & 0x40) !== 0 ? 6 : 4;
    const index = integerAt(frame, at, bits);
    if (index === null) return null;
    at = index.end;
    if (isIndexed || isSize) continue;
    const value = index.value === 0 ? textEnd(frame, at) : at;
    const end = value === null ? null : textEnd(frame, value);
    if (value === null || end === null) return null;
    if (index.value === AUTHORITY_INDEX) return { value, end };
    at = end;
  }
  return null;
}

function textEnd(frame: Buffer, at: number): number | null {
  const length = integerAt(frame, at, 7);
  if (length === null || length.end + length.value > frame.length) return null;
  return length.end + length.value;
}

/** RFC 7541, 5.1: an integer in the last `bits` of an octet, and in those after it. */
function integerAt(frame: Buffer, at: number, bits: number): Read | null {
  const all = (1 << bits) - 1;
  let value = (frame[at] ?? 0) & all;
  let end = at + 1;
  if (value < all) return end > frame.length ? null : { value, end };
  for (let shift = 0; shift <= INTEGER_SHIFT_MAX; shift += 7) {
    const octet = frame[end];
    if (octet === undefined) return null;
    end += 1;
    value += (octet & 0x7f) << shift;
    if ((octet & 0x80) === 0) return { value, end };
  }
  return null;
}
