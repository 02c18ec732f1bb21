import { invariant } from './errors.js';
import { FRAGMENT_NUMBERS, type Fragments } from './fragments.js';
import { SLAB_BYTES, type SlabPool } from './slab.js';
import { viewOf } from './view.js';

/**
 * Entries a queue keeps at most. What a client is sent ends below it: 4 GiB of slabs in pieces as
 * short as they are kept (`fragments.ts`).
 */
const ENTRIES_MAX = 1 << 22;
/**
 * Entries from which on nothing more should be begun for this peer. One request adds 16 MiB in
 * segments of 512 bytes at most.
 */
const CROWDED_ENTRIES = 1 << 20;

/**
 * Bytes on their way to one socket, in order: a ring of (slab, offset, length) triples that the
 * addon turns into one `sendmsg`. Headers are written straight into a slab of the queue's own
 * (`reserve`, `commit`); payload is referenced where it lies. Every entry holds one reference to
 * its slab until the socket has taken its last byte.
 */
export class SendQueue {
  readonly pool: SlabPool;
  /** Ring of triples; its length in triples is a power of two. */
  table: Int32Array = new Int32Array(FRAGMENT_NUMBERS * 256);
  /** Entries ever taken by the socket, and ever queued; the ring position is modulo capacity. */
  #head = 0;
  #tail = 0;
  #mask = 255;
  /** Bytes queued and not yet taken by the socket. */
  byteLength = 0;
  /** Bytes ever queued; with `byteLength` it says when a given byte has left. */
  queuedBytesTotal = 0;

  #headerSlab = -1;
  #headerAt = 0;
  /** Told when the queue was empty and is not any more. */
  onFirst: (() => void) | null = null;
  /** Memory `reserve` hands out from, twice. */
  headerBuffer: Buffer = Buffer.alloc(0);
  headerView: DataView = viewOf(this.headerBuffer);

  constructor(pool: SlabPool) {
    this.pool = pool;
  }

  get count(): number {
    return this.#tail - this.#head;
  }

  get isEmpty(): boolean {
    return this.#tail === this.#head;
  }

  /** The peer should be asked or answered nothing more until it has taken some of this. */
  get isCrowded(): boolean {
    return this.#tail - this.#head >= CROWDED_ENTRIES;
  }

  /** Ring index of the oldest entry. */
  get firstIndex(): number {
    return this.#head & this.#mask;
  }

  get capacity(): number {
    return this.#mask + 1;
  }

  /** Offset in `headerBuffer` where `length` bytes may be written, to be queued by `commit`. */
  reserve(length: number): number {
    if (this.#headerSlab < 0 || this.#headerAt + length > SLAB_BYTES) {
      this.#renewHeaderSlab();
    } else if (this.#tail === this.#head && this.pool.references(this.#headerSlab) === 1) {
      this.#headerAt = 0;
    }
    return this.#headerAt;
  }

  /** Queues the `length` bytes written at the offset `reserve` gave. */
  commit(length: number): void {
    const at = this.#headerAt;
    this.#headerAt = at + length;
    this.push(this.#headerSlab, at, length);
  }

  /** Queues a piece of a slab and retains the slab. */
  push(slab: number, offset: number, length: number): void {
    if (length === 0) return;
    this.byteLength += length;
    this.queuedBytesTotal += length;
    const table = this.table;
    if (this.#tail !== this.#head) {
      const last = ((this.#tail - 1) & this.#mask) * FRAGMENT_NUMBERS;
      const end = (table[last + 1] ?? 0) + (table[last + 2] ?? 0);
      if (table[last] === slab && end === offset) {
        table[last + 2] = (table[last + 2] ?? 0) + length;
        return;
      }
    }
    if (this.#tail === this.#head) this.onFirst?.();
    if (this.#tail - this.#head > this.#mask) this.#grow();
    this.pool.retain(slab);
    const at = (this.#tail & this.#mask) * FRAGMENT_NUMBERS;
    this.table[at] = slab;
    this.table[at + 1] = offset;
    this.table[at + 2] = length;
    this.#tail += 1;
  }

  /** Queues all of `payload`; the queue takes references of its own. */
  pushFragments(payload: Fragments): void {
    const table = payload.table;
    const end = payload.count * FRAGMENT_NUMBERS;
    for (let at = 0; at < end; at += FRAGMENT_NUMBERS) {
      this.push(table[at] ?? 0, table[at + 1] ?? 0, table[at + 2] ?? 0);
    }
  }

  /** Queues bytes `start … start+length` of `payload`. */
  pushSlice(payload: Fragments, start: number, length: number): void {
    invariant(start >= 0 && start + length <= payload.byteLength, 'slice outside the payload');
    const table = payload.table;
    let skip = start;
    let left = length;
    for (let at = 0; left > 0; at += FRAGMENT_NUMBERS) {
      const size = table[at + 2] ?? 0;
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const take = Math.min(size - skip, left);
      this.push(table[at] ?? 0, (table[at + 1] ?? 0) + skip, take);
      left -= take;
      skip = 0;
    }
  }

  /** Queues a copy of `bytes` (at most a slab); for handshakes, text and other control data. */
  pushCopy(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.headerBuffer.set(bytes, at);
    this.commit(bytes.length);
  }

  /** The socket has taken `sentBytes` from the front: drops whole entries, trims the first. */
  sent(sentBytes: number): void {
    this.byteLength -= sentBytes;
    let left = sentBytes;
    while (left > 0) {
      const at = (this.#head & this.#mask) * FRAGMENT_NUMBERS;
      const length = this.table[at + 2] ?? 0;
      if (left < length) {
        this.table[at + 1] = (this.table[at + 1] ?? 0) + left;
        this.table[at + 2] = length - left;
        return;
      }
      left -= length;
      this.pool.release(this.table[at] ?? 0);
      this.#head += 1;
    }
  }

  /** Drops everything, as when the socket is gone. The queue may be used again. */
  clear(): void {
    while (this.#head !== this.#tail) {
      this.pool.release(this.table[(this.#head & this.#mask) * FRAGMENT_NUMBERS] ?? 0);
      this.#head += 1;
    }
    this.byteLength = 0;
    if (this.#headerSlab >= 0) this.pool.release(this.#headerSlab);
    this.#headerSlab = -1;
    this.#headerAt = 0;
  }

  #renewHeaderSlab(): void {
    if (this.#headerSlab >= 0) this.pool.release(this.#headerSlab);
    this.#headerSlab = this.pool.acquire();
    this.#headerAt = 0;
    this.headerBuffer = this.pool.buffer(this.#headerSlab);
    this.headerView = viewOf(this.headerBuffer);
  }

  #grow(): void {
    const capacity = this.#mask + 1;
    invariant(capacity < ENTRIES_MAX, `send queue over ${ENTRIES_MAX} entries`);
    const wider = new Int32Array(capacity * 2 * FRAGMENT_NUMBERS);
    const entries = this.#tail - this.#head;
    for (let index = 0; index < entries; index += 1) {
      const from = ((this.#head + index) & this.#mask) * FRAGMENT_NUMBERS;
      wider.set(this.table.subarray(from, from + FRAGMENT_NUMBERS), index * FRAGMENT_NUMBERS);
    }
    this.table = wider;
    this.#mask = capacity * 2 - 1;
    this.#head = 0;
    this.#tail = entries;
  }
}
