import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/base/errors.js';
import { Fragments } from '../../src/base/fragments.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { SlabWriter } from '../../src/base/slab-writer.js';

describe('SlabPool', () => {
  it('a slab is free again when every reference is released, and not before', () => {
    const pool = new SlabPool({ slabsMax: 2 });
    const slab = pool.acquire();
    pool.retain(slab);
    pool.release(slab);
    expect([pool.references(slab), pool.inUse]).toEqual([1, 1]);
    expect(pool.acquire()).not.toBe(slab);
    pool.release(slab);
    expect(pool.inUse).toBe(1);
    expect(pool.acquire()).toBe(slab);
  });

  it('a pool at its maximum yields no slab: tryAcquire returns -1, acquire throws', () => {
    const pool = new SlabPool({ slabsMax: 1 });
    pool.acquire();
    expect(pool.tryAcquire()).toBe(-1);
    expect(() => pool.acquire()).toThrow(InvariantError);
  });

  it('a reference too few, or one to a free slab, throws an InvariantError', () => {
    const pool = new SlabPool({ slabsMax: 1 });
    const slab = pool.acquire();
    pool.release(slab);
    expect(() => pool.release(slab)).toThrow(InvariantError);
    expect(() => pool.retain(slab)).toThrow(InvariantError);
  });

  it('the pool gives back the pages of slabs above idleMax, reports it, and uses the slabs again', () => {
    const pool = new SlabPool({ slabsMax: 3, idleMax: 1 });
    const made: number[] = [];
    const givenBack: number[] = [];
    pool.onMade = (index, buffer) => {
      expect(buffer.length).toBe(SLAB_BYTES);
      made.push(index);
    };
    pool.onGivenBack = (index) => givenBack.push(index);
    const slabs = [pool.acquire(), pool.acquire(), pool.acquire()];
    for (const slab of slabs) pool.release(slab);
    expect([made.length, givenBack.length, pool.inUse]).toEqual([3, 2, 0]);
    const again = [pool.acquire(), pool.acquire(), pool.acquire()];
    expect([made.length, new Set(again).size, pool.inUse]).toEqual([3, 3, 3]);
    expect(pool.tryAcquire()).toBe(-1);
    expect(again.map((slab) => pool.references(slab))).toEqual([1, 1, 1]);
  });

  it('trim gives back the slabs that were not needed since the last trim, and keeps the others', () => {
    const pool = new SlabPool({ slabsMax: 40 });
    const givenBack: number[] = [];
    pool.onGivenBack = (index) => givenBack.push(index);
    const use = (count: number): void => {
      const slabs = Array.from({ length: count }, () => pool.acquire());
      for (const slab of slabs) pool.release(slab);
    };
    use(40);
    pool.trim();
    expect(givenBack).toEqual([]);
    use(20);
    pool.trim();
    expect([givenBack.length, new Set(givenBack).size]).toEqual([16, 16]);
    pool.trim();
    expect(givenBack.length).toBe(36);
    use(40);
    expect(pool.inUse).toBe(0);
  });
});

/** Three slabs with different bytes. */
function filled(pool: SlabPool): number[] {
  return [0, 1, 2].map((at) => {
    const slab = pool.acquire();
    const buffer = pool.buffer(slab);
    for (let index = 0; index < 4096; index += 1) buffer[index] = (index * 7 + at * 31) & 0xff;
    return slab;
  });
}

/** Slabs that the entries of a payload name. */
function slabsOf({ table, count }: Fragments): number[] {
  return Array.from({ length: count }, (_, entry) => table[entry * 3]!);
}

describe('Fragments', () => {
  const pieces = fc.array(
    fc.record({ slab: fc.nat(2), offset: fc.nat(2000), length: fc.nat(2000) }),
    { maxLength: 40 },
  );

  it('fragments read as their pieces in order, in any slice, and hold each slab until cleared', () => {
    fc.assert(
      fc.property(pieces, fc.nat(100), (rows, percent) => {
        const pool = new SlabPool({ slabsMax: 5 });
        const slabs = filled(pool);
        const whole = new Fragments(pool);
        const expected: Buffer[] = [];
        for (const { slab, offset, length } of rows) {
          const index = slabs[slab]!;
          whole.append(index, offset, length);
          expected.push(Buffer.from(pool.buffer(index).subarray(offset, offset + length)));
        }
        const bytes = Buffer.concat(expected);
        const start = Math.floor((bytes.length * percent) / 100);
        const length = Math.floor(((bytes.length - start) * percent) / 100);
        const slice = new Fragments(pool);
        slice.appendSlice(whole, start, length);
        const isSame =
          whole.toBuffer().equals(bytes) &&
          slice.toBuffer().equals(bytes.subarray(start, start + length));
        for (const slab of slabs) pool.release(slab);
        const held = new Set([...slabsOf(whole), ...slabsOf(slice)]);
        const holds = pool.inUse === held.size;
        whole.clear();
        slice.clear();
        return isSame && holds && pool.inUse === 0 && whole.byteLength === 0;
      }),
    );
  });

  it('bytes that follow each other in one slab are one entry', () => {
    const pool = new SlabPool({ slabsMax: 1 });
    const slab = pool.acquire();
    const fragments = new Fragments(pool);
    fragments.append(slab, 0, 10);
    fragments.append(slab, 10, 5);
    fragments.append(slab, 16, 1);
    expect([fragments.count, fragments.byteLength, pool.references(slab)]).toEqual([2, 16, 3]);
  });

  it('short pieces of payloads that arrive in turns are joined within their own payload', () => {
    const pool = new SlabPool({ slabsMax: 8 });
    const [slab] = filled(pool);
    const payloads = [new Fragments(pool), new Fragments(pool)];
    const expected: Buffer[] = [];
    for (let at = 0; at < 20_000; at += 1) {
      const offset = (at * 32) % 4096;
      for (const [index, payload] of payloads.entries()) payload.append(slab!, offset + index, 16);
      expected.push(Buffer.from(pool.buffer(slab!).subarray(offset, offset + 16)));
    }
    const [first, second] = payloads;
    expect(first!.toBuffer().equals(Buffer.concat(expected))).toBe(true);
    expect(second!.byteLength).toBe(320_000);
    for (const { count } of payloads) expect(count).toBeLessThan(4 + 320_000 / 4096);
    // What two payloads of 320 KB take is less than two slabs.
    expect(pool.inUse).toBeLessThanOrEqual(3 + 2);
    for (const payload of payloads) payload.clear();
    for (let at = 0; at < 3; at += 1) pool.release(at);
    expect(pool.inUse).toBe(0);
  });

  it('short and long pieces in turns make at most two entries for each long one', () => {
    const pool = new SlabPool({ slabsMax: 8 });
    const [slab] = filled(pool);
    const payload = new Fragments(pool);
    const expected: Buffer[] = [];
    for (let at = 0; at < 2000; at += 1) {
      const length = at % 2 === 0 ? 1 : 2048;
      payload.append(slab!, at, length);
      expected.push(Buffer.from(pool.buffer(slab!).subarray(at, at + length)));
    }
    expect(payload.toBuffer().equals(Buffer.concat(expected))).toBe(true);
    expect(payload.count).toBeLessThan(4 + 2000 + 200);
    payload.clear();
    expect(pool.inUse).toBe(3);
  });

  it('a small payload in a few pieces is not copied, nor are bytes that follow each other', () => {
    const pool = new SlabPool({ slabsMax: 4 });
    const [slab] = filled(pool);
    const payload = new Fragments(pool);
    for (const offset of [0, 100, 200, 300]) payload.append(slab!, offset, 16);
    for (let at = 0; at < 100; at += 1) payload.append(slab!, 316 + at, 1);
    expect(slabsOf(payload)).toEqual([slab, slab, slab, slab]);
    expect(payload.byteLength).toBe(164);
  });

  it('a payload that is emptied and used again does not change what it held before', () => {
    const pool = new SlabPool({ slabsMax: 8 });
    const [slab] = filled(pool);
    const [payload, copy] = [new Fragments(pool), new Fragments(pool)];
    const fill = () => {
      for (let at = 0; at < 100; at += 1) payload.append(slab!, at * 2, 1);
    };
    fill();
    copy.appendSlice(payload, 0, payload.byteLength);
    // The first entries are no copies, and change with the slab.
    const before = copy.toBuffer().subarray(4);
    payload.clear();
    pool.buffer(slab!).fill(0xee, 0, 4096);
    fill();
    expect(copy.toBuffer().subarray(4).equals(before)).toBe(true);
    expect(payload.toBuffer().equals(Buffer.alloc(100, 0xee))).toBe(true);
  });

  it('a slice outside the payload throws an InvariantError', () => {
    const fragments = new Fragments(new SlabPool({ slabsMax: 1 }));
    expect(() => fragments.appendSlice(fragments, 0, 1)).toThrow(InvariantError);
    expect(() => fragments.appendSlice(fragments, -1, 0)).toThrow(InvariantError);
  });
});

describe('SlabWriter', () => {
  it('the writer packs small pieces into one slab, and continues in the next', () => {
    const pool = new SlabPool({ slabsMax: 3 });
    const writer = new SlabWriter(pool);
    const into = [0, 1, 2].map(() => new Fragments(pool));
    writer.write(Buffer.from('first'), into[0]!);
    writer.write(Buffer.from('second'), into[1]!);
    expect(pool.inUse).toBe(1);
    writer.write(Buffer.alloc(SLAB_BYTES, 3), into[2]!);
    expect(pool.inUse).toBe(2);
    expect(into.slice(0, 2).map((each) => each.toBuffer().toString())).toEqual(['first', 'second']);
    expect(into[2]!.toBuffer().equals(Buffer.alloc(SLAB_BYTES, 3))).toBe(true);
    writer.close();
    for (const each of into) each.clear();
    expect(pool.inUse).toBe(0);
  });

  it('the writer rejects more than one slab at a time', () => {
    const pool = new SlabPool({ slabsMax: 1 });
    const into = new Fragments(pool);
    const tooMuch = Buffer.alloc(SLAB_BYTES + 1);
    expect(() => new SlabWriter(pool).write(tooMuch, into)).toThrow(InvariantError);
  });
});
