import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { native, shareSlabs } from '../../src/io/native.js';

function acquired(pool: SlabPool, count: number): number[] {
  return Array.from({ length: count }, () => pool.acquire());
}

/** Resident memory of this process in bytes, counted page by page. */
function residentBytes(): number {
  const text = readFileSync('/proc/self/smaps_rollup', 'utf8');
  return Number(/^Rss:\s+(\d+)/m.exec(text)?.[1]) * 1024;
}

describe('SlabPool', () => {
  it('the pool reuses the slab whose bytes were used last', () => {
    const pool = new SlabPool({ slabsMax: 8 });
    const [first, second] = acquired(pool, 2) as [number, number];
    pool.release(first);
    pool.release(second);
    expect(pool.acquire()).toBe(second);
  });

  it('the pool keeps what a busy time needs, and gives it back after a quiet one', () => {
    const given: number[] = [];
    const pool = new SlabPool({ slabsMax: 64 });
    pool.onGivenBack = (index) => given.push(index);
    for (const index of acquired(pool, 32)) pool.release(index);
    pool.trim(); // the busy time was within this period
    expect(given).toEqual([]);
    const [busy] = acquired(pool, 10) as [number];
    pool.release(busy);
    pool.trim(); // 22 of 32 were never touched, 4 of those stay
    expect(given).toHaveLength(18);
  });

  it('the pool keeps no more than its maximum of idle slabs', () => {
    const given: number[] = [];
    const pool = new SlabPool({ slabsMax: 64, idleMax: 3 });
    pool.onGivenBack = (index) => given.push(index);
    for (const index of acquired(pool, 10)) pool.release(index);
    expect(given).toHaveLength(7);
    expect(pool.inUse).toBe(0);
  });

  it('the pool makes no more slabs than its maximum, counting those given back', () => {
    const pool = new SlabPool({ slabsMax: 4, idleMax: 0 });
    for (const index of acquired(pool, 4)) pool.release(index);
    expect(new Set(acquired(pool, 4)).size).toBe(4);
    expect(pool.tryAcquire()).toBe(-1);
  });

  it('the pool rejects a release too many', () => {
    const pool = new SlabPool({ slabsMax: 1 });
    const index = pool.acquire();
    pool.release(index);
    expect(() => pool.release(index)).toThrow('released more often');
  });

  it('slabs that are given back cost no memory, and can be used again', () => {
    const pool = new SlabPool({ slabsMax: 64, idleMax: 0 });
    shareSlabs(pool);
    const slabs = acquired(pool, 64);
    for (const index of slabs) pool.buffer(index).fill(0xa5);
    const full = residentBytes();
    for (const index of slabs) pool.release(index);
    expect(full - residentBytes()).toBeGreaterThan(60 * SLAB_BYTES);
    const again = pool.acquire();
    pool.buffer(again).fill(0x5a);
    expect(pool.buffer(again).every((byte) => byte === 0x5a)).toBe(true);
    expect(() => native.dropSlab(9999)).not.toThrow();
  });
});
