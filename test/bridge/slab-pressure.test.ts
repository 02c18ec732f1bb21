import { describe, expect, it } from 'vitest';
import { Fragments } from '../../src/base/fragments.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { Budget } from '../../src/bridge/budget.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';
import { HeldDisk, Peer, request } from '../helpers/nbd-peer.js';

const WRITE = 1;
const SLABS_MAX = 64;
const LIMITS = { tight: 16, scarce: 32 } as const;
const BLOCK = 512;

/** Bytes that tell where they belong. */
function payload(block: number, length = BLOCK): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4) bytes.writeUInt32BE(block * 1000 + at / 4, at);
  return bytes;
}

function write(block: number, length = BLOCK): Buffer {
  const data = payload(block, length);
  return request(WRITE, { cookie: BigInt(block), offset: BigInt(block * BLOCK), payload: data });
}

function setUp() {
  const pool = new SlabPool({ slabsMax: SLABS_MAX, limits: LIMITS });
  const budget = new Budget({ requestsMax: 8192, bytesMax: 1 << 30, memory: pool });
  const disk = new HeldDisk();
  const unitBudget = new UnitBudget(budget);
  return { pool, budget, unitBudget, disk, peer: new Peer(pool, unitBudget, disk) };
}

/** Answers the oldest request that waits, whose bytes have to be those that were sent. */
function serve(disk: HeldDisk): void {
  const [oldest] = disk.requests;
  const found = oldest?.data.toBuffer();
  const block = (oldest?.offsetBytes ?? 0) / BLOCK;
  expect(found?.equals(payload(block, found.length))).toBe(true);
  disk.done();
}

describe('clients that hold a part of many slabs', () => {
  it('clients cannot use up the slabs: received bytes are packed if many are in use', () => {
    const { pool, disk, peer } = setUp();
    // Each receive is a slab of its own, and each write keeps it.
    for (let block = 0; block < 10 * SLABS_MAX; block += 1) peer.send(write(block));
    expect(disk.requests).toHaveLength(10 * SLABS_MAX);
    expect(pool.inUse).toBeLessThanOrEqual(LIMITS.tight + 4);
    for (let block = 0; block < 10 * SLABS_MAX; block += 1) serve(disk);
    expect(peer.errors()).toHaveLength(10 * SLABS_MAX);
    peer.close();
    expect(pool.inUse).toBe(0);
    expect(pool.isTight).toBe(false);
  });

  it('clients are not read while few slabs are left, and resume after some replies', () => {
    const { pool, budget, unitBudget, disk, peer } = setUp();
    const other = new Peer(pool, unitBudget, disk);
    let held = 0;
    // A small write is held, and a large one that comes and goes fills the rest of its slab.
    while (peer.reading && other.reading) {
      peer.send(write(held));
      const before = disk.requests.length;
      if (other.reading) other.send(write(100_000, 700 << 10), write(7, 300 << 10));
      for (const large of disk.requests.splice(before)) large.done(null);
      held += 1;
      expect(held).toBeLessThan(SLABS_MAX * 2);
    }
    expect(pool.inUse).toBeLessThan(LIMITS.scarce + 4);
    expect(disk.requests.length).toBeGreaterThan(LIMITS.tight);
    while (disk.requests.length > 0) serve(disk);
    expect([peer.reading, other.reading]).toEqual([true, true]);
    expect(peer.errors().every(([, errno]) => errno === 0)).toBe(true);
    peer.close();
    other.close();
    expect([pool.inUse, budget.requests, budget.bytes]).toEqual([0, 0, 0]);
  });

  it('a single request is served however little memory is left, so that the clients progress', () => {
    const { pool, disk, peer } = setUp();
    const taken = Array.from({ length: LIMITS.scarce + 8 }, () => pool.acquire());
    for (let block = 0; block < 10; block += 1) {
      expect(peer.reading).toBe(true);
      peer.send(write(block));
      expect(disk.requests).toHaveLength(1);
      serve(disk);
    }
    for (const slab of taken) pool.release(slab);
  });
});

it('packed bytes are unchanged, also across the end of a slab', () => {
  const pool = new SlabPool({ slabsMax: 8, limits: { tight: 1, scarce: 8 } });
  const source = pool.acquire();
  const other = pool.acquire();
  for (let at = 0; at < SLAB_BYTES; at += 4) pool.buffer(source).writeUInt32LE(at, at);
  const fragments = new Fragments(pool);
  const expected: Buffer[] = [];
  for (const [offset, length] of [
    [4, 700_000],
    [0, 0],
    [999, 600_001],
    [0, SLAB_BYTES],
  ] as const) {
    fragments.append(source, offset, length);
    expected.push(Buffer.from(pool.buffer(source).subarray(offset, offset + length)));
  }
  pool.buffer(source).fill(0);
  expect(fragments.toBuffer().equals(Buffer.concat(expected))).toBe(true);
  expect(pool.references(source)).toBe(1);
  fragments.clear();
  pool.release(source);
  pool.release(other);
  expect(pool.inUse).toBe(0);
});
