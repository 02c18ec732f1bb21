import { invariant } from './errors.js';
import type { SlabPool } from './slab.js';

/** Numbers that describe one fragment: slab index, byte offset in it, byte length. */
export const FRAGMENT_NUMBERS = 3;

/**
 * Shorter pieces are copied together once a payload has some entries. A sender can cut a payload
 * anywhere, and each entry costs more than a few bytes do: a payload has at most
 * `PIECES_KEPT` entries and two for each `PIECE_BYTES_MIN` bytes.
 */
const PIECE_BYTES_MIN = 2048;
/** Entries of any length: a small payload in a few pieces is not copied. */
const PIECES_KEPT = 4;
/** Memory for copies that a payload takes at a time, and as much as it has bytes at most. */
const RUN_BYTES_MAX = 16 << 10;

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
  /** Where the next copied bytes go: memory that is this payload's own, so that they are joined. */
  #runSlab = -1;
  #runAt = 0;
  #runEnd = 0;

  constructor(pool: SlabPool) {
    this.pool = pool;
  }

  /** Adds `length` bytes at `offset` of slab `slab`, and retains the slab; or packs them. */
  append(slab: number, offset: number, length: number): void {
    if (this.pool.isTight) this.#pack(slab, offset, length);
    else if (length >= PIECE_BYTES_MIN || this.count < PIECES_KEPT || this.#endsAt(slab, offset)) {
      this.#reference(slab, offset, length);
    } else this.#pack(slab, offset, length);
  }

  /** Adds a copy of `bytes`, which are in no slab. */
  appendCopy(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      if (this.#runAt === this.#runEnd) this.#takeRun(bytes.length - done);
      const size = Math.min(bytes.length - done, this.#runEnd - this.#runAt);
      this.pool.buffer(this.#runSlab).set(bytes.subarray(done, done + size), this.#runAt);
      this.#reference(this.#runSlab, this.#runAt, size);
      this.#runAt += size;
      done += size;
    }
  }

  /** Does the last entry end at this place? */
  #endsAt(slab: number, offset: number): boolean {
    const last = (this.count - 1) * FRAGMENT_NUMBERS;
    const { table } = this;
    return table[last] === slab && (table[last + 1] ?? 0) + (table[last + 2] ?? 0) === offset;
  }

  /** Adds a copy of the bytes. Each run is referenced by an entry as soon as it is taken. */
  #pack(slab: number, offset: number, length: number): void {
    const { pool } = this;
    for (let done = 0; done < length; ) {
      if (this.#runAt === this.#runEnd) this.#takeRun(length - done);
      const size = Math.min(length - done, this.#runEnd - this.#runAt);
      const from = offset + done;
      pool.buffer(slab).copy(pool.buffer(this.#runSlab), this.#runAt, from, from + size);
      this.#reference(this.#runSlab, this.#runAt, size);
      this.#runAt += size;
      done += size;
    }
  }

  #takeRun(length: number): void {
    const wanted = Math.max(length, Math.min(this.byteLength, RUN_BYTES_MAX));
    const size = this.pool.takePacking(wanted);
    this.#runSlab = this.pool.packingSlab;
    this.#runAt = this.pool.packingAt;
    this.#runEnd = this.#runAt + size;
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
    this.#runAt = this.#runEnd;
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
