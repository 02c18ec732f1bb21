import { FRAGMENT_NUMBERS, type Fragments } from '../../base/fragments.js';
import { SLAB_BYTES, type SlabPool } from '../../base/slab.js';

/** Slabs that may be kept for as many bytes as fit into one, and some more. */
const SLABS_PER_SLAB_OF_BYTES_MAX = 2;
const SLABS_ALLOWED = 8;

/**
 * Slabs that retained writes keep: those in which large ones lie where their client put them, and
 * those into which small ones are copied, one behind the other.
 */
export class KeptSlabs {
  readonly #pool: SlabPool;
  /** References of ours by slab, and slabs that have some. */
  readonly #references: Int32Array;
  #count = 0;
  /** Where the next copy goes; -1 without. */
  slab = -1;
  #filledBytes = 0;
  /** Where the last copy begins in its slab. */
  copiedAt = 0;

  constructor(pool: SlabPool) {
    this.#pool = pool;
    this.#references = new Int32Array(pool.slabsMax);
  }

  /**
   * True if large writes may keep their slabs, of which others may have the rest; `bytes` are those
   * that are retained so far.
   */
  mayKeep(bytes: number): boolean {
    const allowed = (bytes / SLAB_BYTES) * SLABS_PER_SLAB_OF_BYTES_MAX + SLABS_ALLOWED;
    return this.#count < allowed && !this.#pool.isTight;
  }

  keep(slab: number): void {
    this.#pool.retain(slab);
    const before = this.#references[slab] ?? 0;
    if (before === 0) this.#count += 1;
    this.#references[slab] = before + 1;
  }

  letGo(slab: number): void {
    const left = (this.#references[slab] ?? 0) - 1;
    this.#references[slab] = left;
    if (left === 0) this.#count -= 1;
    this.#pool.release(slab);
  }

  /**
   * Copies bytes of `data` from `start` on, as many as the slab has room for, and returns how many.
   * They are at `copiedAt` of `slab`, to be kept before anything else is copied.
   */
  copy(data: Fragments, start: number): number {
    if (this.slab < 0 || this.#filledBytes === SLAB_BYTES) this.#takeSlab();
    const sizeBytes = Math.min(data.byteLength - start, SLAB_BYTES - this.#filledBytes);
    const into = this.#pool.buffer(this.slab);
    this.copiedAt = this.#filledBytes;
    let skip = start;
    let left = sizeBytes;
    for (let at = 0; left > 0; at += FRAGMENT_NUMBERS) {
      const length = data.table[at + 2] ?? 0;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const from = (data.table[at + 1] ?? 0) + skip;
      const take = Math.min(length - skip, left);
      this.#pool.buffer(data.table[at] ?? 0).copy(into, this.#filledBytes, from, from + take);
      this.#filledBytes += take;
      left -= take;
      skip = 0;
    }
    return sizeBytes;
  }

  /** The slab that is being filled is kept by what was copied into it only. */
  endCopying(): void {
    if (this.slab >= 0) this.#pool.release(this.slab);
    this.slab = -1;
  }

  #takeSlab(): void {
    this.endCopying();
    this.slab = this.#pool.acquire();
    this.#filledBytes = 0;
  }
}
