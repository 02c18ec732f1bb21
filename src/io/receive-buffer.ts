import { SLAB_BYTES, SLAB_TAIL_BYTES, type SlabPool } from '../base/slab.js';

/**
 * Where the next bytes of sockets of this thread go. The sockets take turns, so they share one
 * slab: an idle socket has none, and small receipts find the bytes that are in the cache already.
 * What a receiver keeps it retains; the window goes on behind it.
 */
export class ReceiveBuffer {
  /** What the addon reads before each receive: slab, offset, length. */
  readonly place = new Int32Array(3);
  readonly #pool: SlabPool;
  #slab = -1;
  /** End of what has been received into the slab. */
  #filled = 0;
  #users = 0;

  constructor(pool: SlabPool) {
    this.#pool = pool;
  }

  get slab(): number {
    return this.#slab;
  }

  /** One more socket. */
  join(): void {
    this.#users += 1;
    if (this.#slab < 0) this.open();
  }

  /** One socket fewer; without any, no memory is held. */
  leave(): void {
    this.#users -= 1;
    if (this.#users > 0 || this.#slab < 0) return;
    this.#pool.release(this.#slab);
    this.#slab = -1;
  }

  /** `length` bytes have come; returns where they begin. */
  received(length: number): number {
    const start = this.#filled;
    this.#filled = start + length;
    return start;
  }

  /** After a receipt has been dealt with: the slab's start if no part of it was kept, else on. */
  open(): void {
    if (this.#users === 0) return;
    if (this.#slab >= 0 && this.#pool.references(this.#slab) === 1) this.#filled = 0;
    if (this.#slab < 0 || SLAB_BYTES - this.#filled < SLAB_TAIL_BYTES) {
      if (this.#slab >= 0) this.#pool.release(this.#slab);
      this.#slab = this.#pool.acquire();
      this.#filled = 0;
    }
    this.place[0] = this.#slab;
    this.place[1] = this.#filled;
    this.place[2] = SLAB_BYTES - this.#filled;
  }
}

/** Kind of a socket's peer: it decides how long the bytes that the peer sends stay in memory. */
export type Peer = 'client' | 'target';

/**
 * Each pool has one window for what clients send and one for what targets send. What is written may
 * be retained for seconds, what is read is sent on at once: in one slab, the former would keep the
 * memory of the latter.
 */
const windows = new WeakMap<SlabPool, Record<Peer, ReceiveBuffer>>();

export function receiveBufferOf(pool: SlabPool, peer: Peer): ReceiveBuffer {
  let known = windows.get(pool);
  if (known === undefined) {
    known = { client: new ReceiveBuffer(pool), target: new ReceiveBuffer(pool) };
    windows.set(pool, known);
  }
  return known[peer];
}
