import { describe, expect, it } from 'vitest';
import { crc32c } from '../../src/base/crc32c.js';
import { SlabPool } from '../../src/base/slab.js';
import { native, shareSlabs } from '../../src/io/native.js';

/** RFC 7143 A.4 (CRC Examples): bytes, and the four bytes of the digest as they are sent. */
const EXAMPLES = [
  ['32 bytes of zeroes', Buffer.alloc(32), 'aa36918a'],
  ['32 bytes of ones', Buffer.alloc(32, 0xff), '43aba862'],
  ['32 bytes incrementing', Buffer.from(Array.from({ length: 32 }, (_, n) => n)), '4e79dd46'],
  ['32 bytes decrementing', Buffer.from(Array.from({ length: 32 }, (_, n) => 31 - n)), '5cdb3f11'],
  [
    'a SCSI Read (10) command',
    Buffer.from(
      '01c00000000000000000000000000000140000000000040000000014000000182800000000000000' +
        '0200000000000000',
      'hex',
    ),
    '563a96d9',
  ],
] as const;

const pool = new SlabPool({ slabsMax: 4 });
shareSlabs(pool);
const slab = pool.acquire();
const memory = pool.buffer(slab);

const WAYS: readonly [string, (offset: number, length: number, seed: number) => number][] = [
  ['in JavaScript', (offset, length, seed) => crc32c(memory, offset, offset + length, seed)],
  ['in the addon', (offset, length, seed) => pool.crc32c(slab, offset, length, seed)],
  ['in the addon by table', (offset, length, seed) => by(0, offset, length, seed)],
  ['in the addon by the instruction', (offset, length, seed) => by(1, offset, length, seed)],
  ['in the addon by multiplication', (offset, length, seed) => by(2, offset, length, seed)],
  ['in the addon by wide multiplication', (offset, length, seed) => by(3, offset, length, seed)],
];

function by(way: number, offset: number, length: number, seed: number): number {
  return native.crc32cBy(way, memory.subarray(offset, offset + length), seed);
}

describe.each(WAYS)('CRC32C %s', (_name, digest) => {
  it.each(EXAMPLES)('the digest of %s is that of RFC 7143 A.4', (_what, bytes, sent) => {
    memory.set(bytes, 5);
    const wire = Buffer.alloc(4);
    wire.writeInt32LE(digest(5, bytes.length, 0));
    expect(wire.toString('hex')).toBe(sent);
  });

  // The polynomial division itself, a bit at a time: slow, and too simple to be wrong.
  it('the digest of any length, place and seed is the remainder of the division', () => {
    for (let at = 0; at < 20_000; at += 1) memory[at] = (at * 2654435761) >>> 13;
    const lengths = [
      0, 1, 7, 8, 9, 63, 503, 504, 505, 511, 512, 513, 543, 544, 767, 768, 800, 1360,
    ];
    lengths.push(4079, 4080, 4081, 4096, 4127, 8191, 13_000);
    for (const length of lengths) {
      for (const [offset, seed] of [
        [0, 0],
        [3, 0x12345678],
        [8, -1],
      ] as const) {
        expect(digest(offset, length, seed), `${length} at ${offset}`).toBe(
          remainder(memory.subarray(offset, offset + length), seed),
        );
      }
    }
  });

  it('the digest of two parts, one after the other, is that of the whole', () => {
    for (const cut of [0, 1, 48, 4080, 5000, 9000]) {
      expect(digest(cut, 9000 - cut, digest(0, cut, 0))).toBe(digest(0, 9000, 0));
    }
  });
});

it('the addon rejects bytes outside a slab', () => {
  for (const [index, offset, length] of [
    [slab, memory.length - 4, 5],
    [slab, -1, 4],
    [slab, 0, -1],
    [99, 0, 4],
  ] as const) {
    expect(() => native.crc32c(index, offset, length, 0)).toThrow(RangeError);
  }
});

function remainder(bytes: Uint8Array, seed: number): number {
  let crc = ~seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1)
      crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc;
}
