import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvariantError } from '../../src/base/errors.js';
import { Fragments } from '../../src/base/fragments.js';
import { SendQueue } from '../../src/base/send-queue.js';
import { serialAdd, serialDistance, serialLess } from '../../src/base/serial32.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';

/** The queued bytes as a socket would gather them. */
function queued(queue: SendQueue): Buffer {
  const pieces: Buffer[] = [];
  for (let index = 0; index < queue.count; index += 1) {
    const at = ((queue.firstIndex + index) % queue.capacity) * 3;
    const [slab, offset, length] = [queue.table[at]!, queue.table[at + 1]!, queue.table[at + 2]!];
    pieces.push(queue.pool.buffer(slab).subarray(offset, offset + length));
  }
  return Buffer.concat(pieces);
}

/** A queue beside a plain list of the bytes that should come out of it. */
class Model {
  readonly pool = new SlabPool({ slabsMax: 64 });
  readonly queue = new SendQueue(this.pool);
  readonly slab = this.pool.acquire();
  readonly expected: Buffer[] = [];
  readonly taken: Buffer[] = [];

  constructor() {
    for (let at = 0; at < 4096; at += 1) this.pool.buffer(this.slab)[at] = (at * 13) & 0xff;
  }

  copy(length: number): void {
    const bytes = Buffer.alloc(length, length & 0xff);
    this.queue.pushCopy(bytes);
    this.expected.push(bytes);
  }

  payload(start: number, length: number): void {
    const fragments = new Fragments(this.pool);
    fragments.append(this.slab, 5, 500);
    fragments.append(this.slab, 1000, 500);
    const bytes = fragments.toBuffer();
    if (length === bytes.length) this.queue.pushFragments(fragments);
    else this.queue.pushSlice(fragments, start, length);
    this.expected.push(bytes.subarray(start, start + length));
    fragments.clear();
  }

  burst(count: number): void {
    for (let at = 0; at < count; at += 1) {
      const offset = (at * 2) % 4000;
      this.queue.push(this.slab, offset, 1);
      this.expected.push(Buffer.from([(offset * 13) & 0xff]));
    }
  }

  send(length: number): void {
    const bytes = Buffer.from(queued(this.queue).subarray(0, length));
    this.taken.push(bytes);
    this.queue.sent(bytes.length);
  }
}

describe('SendQueue', () => {
  const steps = fc.array(
    fc.tuple(
      fc.constantFrom('copy', 'payload', 'slice', 'send', 'burst'),
      fc.integer({ min: 1, max: 900 }),
    ),
    { maxLength: 60 },
  );

  it('the queue yields each byte once and in order, however the socket accepts it', () => {
    fc.assert(
      fc.property(steps, (rows) => {
        const model = new Model();
        for (const [step, length] of rows) {
          if (step === 'copy') model.copy(length);
          else if (step === 'payload') model.payload(0, 1000);
          else if (step === 'slice') model.payload(50, length);
          else if (step === 'burst') model.burst(length);
          else model.send(length);
        }
        const { queue, pool } = model;
        const left = queued(queue).length;
        const counts = queue.byteLength === left;
        model.send(left);
        const isSame = Buffer.concat(model.taken).equals(Buffer.concat(model.expected));
        const isEmpty = queue.isEmpty && queue.byteLength === 0;
        queue.clear();
        pool.release(model.slab);
        return counts && isSame && isEmpty && pool.inUse === 0;
      }),
    );
  });

  it('onFirst is called once each time the queue stops being empty', () => {
    const model = new Model();
    let times = 0;
    model.queue.onFirst = () => {
      times += 1;
    };
    model.copy(5);
    model.copy(5);
    model.payload(0, 1000);
    expect(times).toBe(1);
    model.send(1010);
    model.copy(5);
    expect(times).toBe(2);
  });

  it('the queue holds a payload until its last byte is sent', () => {
    const pool = new SlabPool({ slabsMax: 4 });
    const slab = pool.acquire();
    const queue = new SendQueue(pool);
    queue.push(slab, 0, 100);
    pool.release(slab);
    queue.sent(99);
    expect(pool.references(slab)).toBe(1);
    queue.sent(1);
    expect(pool.references(slab)).toBe(0);
  });

  it('headers use the start of their slab again once all are sent', () => {
    const queue = new SendQueue(new SlabPool({ slabsMax: 4 }));
    queue.pushCopy(Buffer.alloc(100));
    expect(queue.reserve(10)).toBe(100);
    queue.sent(100);
    expect(queue.reserve(10)).toBe(0);
  });

  it('headers never run over the end of their slab', () => {
    const queue = new SendQueue(new SlabPool({ slabsMax: 4 }));
    queue.pushCopy(Buffer.alloc(SLAB_BYTES - 10, 1));
    queue.pushCopy(Buffer.alloc(20, 2));
    expect(queue.count).toBe(2);
    expect(queued(queue).subarray(-20).equals(Buffer.alloc(20, 2))).toBe(true);
  });

  it('clear releases every slab, and the queue can be used again', () => {
    const pool = new SlabPool({ slabsMax: 4 });
    const queue = new SendQueue(pool);
    queue.pushCopy(Buffer.from('lost'));
    queue.clear();
    expect([queue.byteLength, queue.isEmpty, pool.inUse]).toEqual([0, true, 0]);
    queue.pushCopy(Buffer.from('kept'));
    expect(queued(queue).toString()).toBe('kept');
  });

  it('a slice outside the payload throws an InvariantError', () => {
    const pool = new SlabPool({ slabsMax: 4 });
    const queue = new SendQueue(pool);
    expect(() => queue.pushSlice(new Fragments(pool), 0, 1)).toThrow(InvariantError);
  });
});

describe('serial numbers of 32 bits (RFC 1982)', () => {
  it('serial numbers wrap at 2^32 and compare across the wrap', () => {
    expect(serialAdd(0xffff_ffff, 1)).toBe(0);
    expect(serialAdd(0, -1)).toBe(0xffff_ffff);
    expect(serialDistance(0xffff_fffe, 1)).toBe(3);
    expect(serialDistance(1, 0xffff_fffe)).toBe(-3);
    expect(serialLess(0xffff_ffff, 0)).toBe(true);
    expect(serialLess(0, 0xffff_ffff)).toBe(false);
    expect(serialLess(5, 5)).toBe(false);
    expect(serialLess(0, 0x7fff_ffff)).toBe(true);
  });
});
