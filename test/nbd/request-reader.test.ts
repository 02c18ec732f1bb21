/** Requests are written out from "Request message" of the NBD protocol document. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InvariantError } from '../../src/base/errors.js';
import { NBD_READ_STEP, NbdRequestReader } from '../../src/nbd/request-reader.js';
import { NbdProtocolError } from '../../src/nbd/wire.js';

/** A request; `payload` follows it as it is, whatever `length` says. */
function request(type: number, cookie: number, length: number, payload = Buffer.alloc(0)): Buffer {
  const header = Buffer.from('25609513000000000000000000000000000000000000100000000000', 'hex');
  header.writeUInt16BE(type, 6);
  header.writeUInt32BE(cookie, 12);
  header.writeUInt32BE(length, 24);
  return Buffer.concat([header, payload]);
}

type Seen = { cookie: number; type: number; length: number; tooLong: boolean; payload: Buffer };

/** Feeds `stream` cut at `cuts`, each part at its own place of its own buffer. */
function readAll(stream: Buffer, cuts: readonly number[], reader = new NbdRequestReader()) {
  const done: Seen[] = [];
  let pieces: Buffer[] = [];
  let open = false;
  const ends = [...cuts.filter((cut) => cut < stream.length), stream.length];
  let start = 0;
  for (const [slab, end] of ends.entries()) {
    const before = (slab * 7) % 13;
    const memory = Buffer.concat([
      Buffer.alloc(before, 0xee),
      stream.subarray(start, end),
      Buffer.alloc(5, 0xee),
    ]);
    reader.feed(slab, memory, before, before + end - start);
    start = end;
    for (let step = reader.next(); step !== NBD_READ_STEP.NEED; step = reader.next()) {
      const header = reader.header;
      if (step === NBD_READ_STEP.REQUEST) {
        expect(open).toBe(false);
        open = true;
      } else if (step === NBD_READ_STEP.PAYLOAD) {
        expect(open && reader.slab === slab && reader.fragmentLength > 0).toBe(true);
        const at = reader.fragmentOffset;
        pieces.push(memory.subarray(at, at + reader.fragmentLength));
      } else {
        expect(step === NBD_READ_STEP.END && open).toBe(true);
        open = false;
        const { type, length, tooLong, cookieLower: cookie } = header;
        done.push({ cookie, type, length, tooLong, payload: Buffer.concat(pieces) });
        pieces = [];
      }
    }
  }
  return { done, open };
}

const DATA = Buffer.from(Array.from({ length: 50 }, (_, index) => index + 1));
const STREAM = Buffer.concat([
  request(1, 11, 50, DATA),
  request(0, 12, 4096),
  request(1, 13, 0),
  request(1, 14, 1, Buffer.from([0x25])),
  request(77, 15, 9),
  request(2, 16, 0),
]);
const NOTHING = Buffer.alloc(0);
const EXPECTED: Seen[] = [
  { cookie: 11, type: 1, length: 50, tooLong: false, payload: DATA },
  { cookie: 12, type: 0, length: 4096, tooLong: false, payload: NOTHING },
  { cookie: 13, type: 1, length: 0, tooLong: false, payload: NOTHING },
  { cookie: 14, type: 1, length: 1, tooLong: false, payload: Buffer.from([0x25]) },
  { cookie: 15, type: 77, length: 9, tooLong: false, payload: NOTHING },
  { cookie: 16, type: 2, length: 0, tooLong: false, payload: NOTHING },
];

describe('"Request message": only a WRITE is followed by length bytes', () => {
  test('requests in one piece are read', () => {
    expect(readAll(STREAM, [])).toEqual({ done: EXPECTED, open: false });
  });

  test('the requests are the same when they are cut at every byte in turn, and between all bytes', () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      expect(readAll(STREAM, [cut]).done).toEqual(EXPECTED);
    }
    const everywhere = Array.from(STREAM.keys());
    expect(readAll(STREAM, everywhere).done).toEqual(EXPECTED);
  });

  test('a payload in one slab is reported once, where it lies', () => {
    const reader = new NbdRequestReader();
    reader.feed(3, STREAM, 0, 28 + 50);
    expect(reader.next()).toBe(NBD_READ_STEP.REQUEST);
    expect(reader.next()).toBe(NBD_READ_STEP.PAYLOAD);
    expect([reader.slab, reader.fragmentOffset, reader.fragmentLength]).toEqual([3, 28, 50]);
    expect(reader.next()).toBe(NBD_READ_STEP.END);
    expect(reader.next()).toBe(NBD_READ_STEP.NEED);
    expect(reader.next()).toBe(NBD_READ_STEP.NEED);
  });

  test('a header stays readable until the next one', () => {
    const reader = new NbdRequestReader();
    reader.feed(0, STREAM, 0, 40);
    expect(reader.next()).toBe(NBD_READ_STEP.REQUEST);
    expect(reader.next()).toBe(NBD_READ_STEP.PAYLOAD);
    expect(reader.next()).toBe(NBD_READ_STEP.NEED);
    expect(reader.header).toMatchObject({ cookieLower: 11, offsetBytes: 4096, length: 50 });
  });

  test('a wrong magic is a protocol error, also in a header that came in pieces', () => {
    const bad = Buffer.concat([request(0, 1, 512), Buffer.from('25609514', 'hex'), STREAM]);
    expect(() => readAll(bad, [])).toThrow(NbdProtocolError);
    expect(() => readAll(bad, [30])).toThrow(NbdProtocolError);
  });

  test('a feed before the fed bytes are consumed throws an InvariantError', () => {
    const reader = new NbdRequestReader();
    reader.feed(0, STREAM, 0, 28);
    expect(() => reader.feed(1, STREAM, 28, 56)).toThrow(InvariantError);
    expect(() => new NbdRequestReader().feed(0, STREAM, 0, STREAM.length + 1)).toThrow(
      InvariantError,
    );
  });
});

describe('"Size constraints": long payloads', () => {
  test('a WRITE at the maximum is served; one byte more is skipped and flagged', () => {
    const stream = Buffer.concat([
      request(1, 1, 49, DATA.subarray(1)),
      request(1, 2, 50, DATA),
      request(0, 3, 0xffffffff),
    ]);
    const expected: Seen[] = [
      { cookie: 1, type: 1, length: 49, tooLong: false, payload: DATA.subarray(1) },
      { cookie: 2, type: 1, length: 50, tooLong: true, payload: NOTHING },
      { cookie: 3, type: 0, length: 0xffffffff, tooLong: false, payload: NOTHING },
    ];
    for (let cut = 0; cut <= stream.length; cut += 1) {
      expect(readAll(stream, [cut], new NbdRequestReader(49)).done).toEqual(expected);
    }
  });

  test('the default maximum serves 2^25 bytes and not 2^25 + 1', () => {
    const reader = new NbdRequestReader();
    reader.feed(0, request(1, 1, 2 ** 25), 0, 28);
    expect(reader.next()).toBe(NBD_READ_STEP.REQUEST);
    expect(reader.header.tooLong).toBe(false);
    const other = new NbdRequestReader();
    other.feed(0, request(1, 1, 2 ** 25 + 1), 0, 28);
    expect(other.next()).toBe(NBD_READ_STEP.REQUEST);
    expect(other.header.tooLong).toBe(true);
  });

  test('a payload over 64 MiB is a protocol error; the length of a READ is not', () => {
    expect(() => readAll(request(1, 1, 2 ** 26 + 1), [])).toThrow(NbdProtocolError);
    expect(readAll(request(1, 1, 2 ** 26), []).open).toBe(true);
    expect(readAll(request(0, 1, 2 ** 26 + 1), []).done).toHaveLength(1);
  });
});

test('any bytes in any pieces are framed or rejected, and nothing else is thrown', () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc
      .tuple(fc.nat(9), fc.nat(70), fc.nat(70))
      .map(([type, length, sent]) => request(type, 1, length, Buffer.alloc(sent))),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), fc.array(fc.nat(200)), (pieces, cuts) => {
      const sorted = [...new Set(cuts)].sort((left, right) => left - right);
      try {
        readAll(Buffer.concat(pieces), sorted, new NbdRequestReader(64));
      } catch (error) {
        expect(error).toBeInstanceOf(NbdProtocolError);
      }
    }),
    { numRuns: 1000 },
  );
});
