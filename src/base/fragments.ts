import { invariant } from './errors.js';
import type { SlabPool } from './slab.js';

/** Numbers that describe one fragment: slab index, byte offset in it, byte length. */
export const FRAGMENT_NUMBERS = 3;

/**
 * The bytes of one payload in order, as pieces of slabs. Each entry holds one reference to its
 * slab until `clear`. Bytes that follow each other in one slab become one entry.
 */
export class Fragments {
  readonly pool: SlabPool;
  /** `count` triples (slab, offset, length). */
  table: Int32Array = new Int32Array(FRAGMENT_NUMBERS * 4);
  count = 0;
  byteLength = 0;

  constructor(pool: SlabPool) {
    this.pool = pool;
  }

  /** Adds `length` bytes at `offset` of slab `slab`, and retains the slab; or packs them. */
  append(slab: number, offset: number, length: number): void {
    if (this.pool.isTight) this.#pack(slab, offset, length);
    else this.#reference(slab, offset, length);
  }

  #pack(slab: number, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const size = this.pool.pack(slab, offset + done, length - done);
      this.#reference(this.pool.packedSlab, this.pool.packedAt, size);
      done += size;
    }
  }

  #reference(slab: number, offset: number, length: number): void {
    if (length === 0) return;
    this.byteLength += length;
    const last = (this.count - 1) * FRAGMENT_NUMBERS;
    const table = this.table;
    if (last >= 0 && table[last] === slab) {
      const end = (table[last + 1] ?? 0) + (table[last + 2] ?? 0);
      if (end === offset) {
        table[last + 2] = end + length - (table[last + 1] ?? 0);
        return;
      }
    }
    this.pool.retain(slab);
    const at = this.count * FRAGMENT_NUMBERS;
    if (at === table.length) this.#grow();
    this.table[at] = slab;
    this.table[at + 1] = offset;
    this.table[at + 2] = length;
    this.count += 1;
  }

  /** Adds bytes `start … start+length` of `source`; slabs are shared, nothing is copied. */
  appendSlice(source: Fragments, start: number, length: number): void {
    invariant(start >= 0 && start + length <= source.byteLength, 'slice outside the payload');
    let skip = start;
    let left = length;
    for (let at = 0; left > 0; at += FRAGMENT_NUMBERS) {
      const size = source.table[at + 2] ?? 0;
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const take = Math.min(size - skip, left);
      this.#reference(source.table[at] ?? 0, (source.table[at + 1] ?? 0) + skip, take);
      left -= take;
      skip = 0;
    }
  }

  /** Drops every entry and its reference. */
  clear(): void {
    for (let at = 0; at < this.count * FRAGMENT_NUMBERS; at += FRAGMENT_NUMBERS) {
      this.pool.release(this.table[at] ?? 0);
    }
    this.count = 0;
    this.byteLength = 0;
    if (this.table.length > FRAGMENT_NUMBERS * 256) {
      this.table = new Int32Array(FRAGMENT_NUMBERS * 4);
    }
  }

  /** A fresh Buffer with a copy of all bytes; for the control path and tests. */
  toBuffer(): Buffer {
    const result = Buffer.allocUnsafe(this.byteLength);
    let filled = 0;
    for (let at = 0; at < this.count * FRAGMENT_NUMBERS; at += FRAGMENT_NUMBERS) {
      const offset = this.table[at + 1] ?? 0;
      const length = this.table[at + 2] ?? 0;
      const slab = this.pool.buffer(this.table[at] ?? 0);
      slab.copy(result, filled, offset, offset + length);
      filled += length;
    }
    return result;
  }

  #grow(): void {
    const wider = new Int32Array(this.table.length * 2);
    wider.set(this.table);
    this.table = wider;
  }
}
