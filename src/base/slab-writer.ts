import { invariant } from './errors.js';
import { Fragments } from './fragments.js';
import { SLAB_BYTES, type SlabPool } from './slab.js';

/**
 * Puts small pieces of our own bytes (parameter lists, zero blocks) into slabs, one after another,
 * so that a 24-byte list does not hold a whole slab.
 */
export class SlabWriter {
  readonly #pool: SlabPool;
  #slab = -1;
  #at = 0;

  constructor(pool: SlabPool) {
    this.#pool = pool;
  }

  /** Appends a copy of `bytes` (at most one slab) to `into`. */
  write(bytes: Uint8Array, into: Fragments): void {
    invariant(bytes.length <= SLAB_BYTES, `${bytes.length} bytes do not fit into a slab`);
    if (this.#slab < 0 || this.#at + bytes.length > SLAB_BYTES) {
      this.close();
      this.#slab = this.#pool.acquire();
    }
    this.#pool.buffer(this.#slab).set(bytes, this.#at);
    into.append(this.#slab, this.#at, bytes.length);
    this.#at += bytes.length;
  }

  /** Lets go of the slab being filled. */
  close(): void {
    if (this.#slab >= 0) this.#pool.release(this.#slab);
    this.#slab = -1;
    this.#at = 0;
  }
}

/** A copy of some bytes of our own; its owner clears it. */
export function fragmentsOf(bytes: Uint8Array, pool: SlabPool): Fragments {
  const fragments = new Fragments(pool);
  const writer = new SlabWriter(pool);
  writer.write(bytes, fragments);
  writer.close();
  return fragments;
}
