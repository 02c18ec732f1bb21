import { SLAB_BYTES, SLAB_TAIL_BYTES, type SlabPool } from '../../src/base/slab.js';

/** Where received bytes land: as the socket does it, slab after slab, in place while in use. */
export class SlabWindow {
  readonly #pool: SlabPool;
  #slab = -1;
  #filled = 0;

  constructor(pool: SlabPool) {
    this.#pool = pool;
  }

  /** Bytes that fit into the window now. */
  get room(): number {
    this.#open();
    return SLAB_BYTES - this.#filled;
  }

  /** Copies `bytes` into the slab and hands them to `take`. */
  receive<T>(
    bytes: Uint8Array,
    take: (slab: number, buffer: Buffer, start: number, end: number) => T,
  ): T {
    const start = this.#filled;
    const slab = this.#slab;
    const buffer = this.#pool.buffer(slab);
    buffer.set(bytes, start);
    this.#filled = start + bytes.length;
    return take(slab, buffer, start, this.#filled);
  }

  /** The bytes have been used: the next ones may overwrite what has not been retained. */
  used(): void {
    if (this.#slab >= 0 && this.#pool.references(this.#slab) === 1) this.#filled = 0;
  }

  close(): void {
    if (this.#slab >= 0) this.#pool.release(this.#slab);
    this.#slab = -1;
  }

  #open(): void {
    if (this.#slab >= 0 && SLAB_BYTES - this.#filled >= SLAB_TAIL_BYTES) return;
    if (this.#slab >= 0) this.#pool.release(this.#slab);
    this.#slab = this.#pool.acquire();
    this.#filled = 0;
  }
}
