import { crc32c } from './crc32c.js';
import { InvariantError, invariant } from './errors.js';

/**
 * Reference-counted 1 MiB buffers that all payload lives in, from the socket it arrives on to the
 * socket it leaves by. A slab is named by its index, so that a queue of payload is a table of
 * numbers (slab, offset, length) that the addon can send without looking at any object.
 *
 * 1 MiB and not 512 KiB: two 256 KiB PDUs with their headers then fit into one.
 */
export const SLAB_BYTES = 1 << 20;

/** Bytes at the end of a slab below which a receiver takes a new one. */
export const SLAB_TAIL_BYTES = 128 << 10;

/**
 * Idle slabs that keep their pages: a deep queue of large requests uses as many again and again,
 * and touching fresh pages costs more than copying into them.
 */
const IDLE_MAX = 64;

/**
 * A few bytes that are kept keep their whole slab, and peers may see to it that each slab has some
 * to keep. So from `tight` slabs in use on, what arrives is packed: copied together, so that it
 * takes twice as much memory as it has bytes at most. From `scarce` slabs in use on clients are
 * not read.
 */
type SlabLimits = { readonly tight: number; readonly scarce: number };

/** Idle slabs that `trim` leaves. */
const IDLE_KEPT = 4;

export class SlabPool {
  /** Slabs the pool makes at most. */
  readonly slabsMax: number;
  /** Buffer of each slab by index. */
  readonly buffers: Buffer[] = [];
  readonly #references: Int32Array;
  /** Slabs without a reference, the one used last at the end: its bytes are the warmest. */
  readonly #idle: number[] = [];
  /** Slabs without a reference whose pages the system has. */
  readonly #vacant: number[] = [];
  /** Idle slabs that are kept for reuse; the pages of more than that go to the system. */
  readonly #idleMax: number;
  readonly #limits: SlabLimits;
  /** Where bytes are packed, -1 without; and how far it is filled. */
  #packing = -1;
  #packedBytes = 0;
  packingSlab = -1;
  packingAt = 0;
  /** What arrives has to be packed. */
  isTight = false;
  /** Fewest idle slabs since the last `trim`: so many were not needed. */
  #idleLow = 0;
  /** Memory for a slab: a new one (`before` is null), or one whose pages were given back. */
  memoryOf: (index: number, before: Buffer | null) => Buffer = (_index, before) =>
    before ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
  /**
   * Told about each slab that gets other memory, also a new one, and about each whose pages may go:
   * its bytes are lost then.
   */
  onMade: ((index: number, buffer: Buffer) => void) | null = null;
  onGivenBack: ((index: number) => void) | null = null;
  /** CRC32C of `length` bytes at `offset` of a slab, from `seed` on; the addon may do it. */
  crc32c: (index: number, offset: number, length: number, seed: number) => number;

  constructor(options: {
    readonly slabsMax: number;
    readonly idleMax?: number;
    readonly limits?: SlabLimits;
  }) {
    this.slabsMax = options.slabsMax;
    this.#limits = options.limits ?? { tight: options.slabsMax, scarce: options.slabsMax };
    this.#idleMax = options.idleMax ?? IDLE_MAX;
    this.#references = new Int32Array(options.slabsMax);
    this.crc32c = (index, offset, length, seed) =>
      crc32c(this.buffer(index), offset, offset + length, seed);
  }

  /** Slabs with at least one reference. */
  get inUse(): number {
    return this.buffers.length - this.#idle.length - this.#vacant.length;
  }

  /** So little is left that no new work should begin. */
  get isScarce(): boolean {
    return this.inUse > this.#limits.scarce;
  }

  /** A slab with one reference, or -1 when the pool is at its maximum. */
  tryAcquire(): number {
    const index = this.#take();
    if (this.inUse > this.#limits.tight) this.isTight = true;
    return index;
  }

  #take(): number {
    const idle = this.#idle.pop();
    if (idle !== undefined) {
      if (this.#idle.length < this.#idleLow) this.#idleLow = this.#idle.length;
      this.#references[idle] = 1;
      return idle;
    }
    const index = this.#vacant.pop() ?? this.buffers.length;
    if (index >= this.slabsMax) return -1;
    const before = this.buffers[index] ?? null;
    const buffer = this.memoryOf(index, before);
    this.#references[index] = 1;
    if (buffer === before) return index;
    this.buffers[index] = buffer;
    this.onMade?.(index, buffer);
    return index;
  }

  /** As `tryAcquire`, where the caller's own bounds make exhaustion a bug of ours. */
  acquire(): number {
    const index = this.tryAcquire();
    invariant(index >= 0, `slab pool exhausted: all ${this.slabsMax} slabs are in use`);
    return index;
  }

  /**
   * Takes memory where others pack too, at most `length` bytes of it, and returns how many. It is
   * at `packingAt` of `packingSlab`, to be retained before the next call.
   */
  takePacking(length: number): number {
    if (this.#packing < 0 || this.#packedBytes === SLAB_BYTES) {
      this.#endPacking();
      this.#packing = this.acquire();
    }
    const size = Math.min(length, SLAB_BYTES - this.#packedBytes);
    this.packingSlab = this.#packing;
    this.packingAt = this.#packedBytes;
    this.#packedBytes += size;
    return size;
  }

  /** The memory of a slab that has references. */
  buffer(index: number): Buffer {
    const buffer = this.buffers[index];
    // Words are made only when they are needed: this is on the data path.
    if (!buffer) throw new InvariantError(`slab ${index} has no memory`);
    return buffer;
  }

  references(index: number): number {
    return this.#references[index] ?? 0;
  }

  /** One more reference to a slab that has some: one without may have another owner. */
  retain(index: number): void {
    const before = this.#references[index] ?? 0;
    invariant(before > 0, 'a slab without holders is retained');
    this.#references[index] = before + 1;
  }

  release(index: number): void {
    const left = (this.#references[index] ?? 0) - 1;
    if (left < 0) throw new InvariantError(`slab ${index} released more often than retained`);
    this.#references[index] = left;
    if (left > 0) {
      // No payload uses it any more.
      if (left === 1 && index === this.#packing) this.#endPacking();
      return;
    }
    this.#letGo(index);
    if (this.isTight && this.inUse <= this.#limits.tight) {
      this.isTight = false;
      this.#endPacking();
    }
  }

  #endPacking(): void {
    const slab = this.#packing;
    this.#packing = -1;
    this.#packedBytes = 0;
    if (slab >= 0) this.release(slab);
  }

  #letGo(index: number): void {
    if (this.#idle.length < this.#idleMax) {
      this.#idle.push(index);
      return;
    }
    this.#giveBack(index);
  }

  /** Gives back what was not needed since the last call; called every few seconds. */
  trim(): void {
    const surplus = Math.min(this.#idleLow, this.#idle.length) - IDLE_KEPT;
    if (surplus > 0) for (const index of this.#idle.splice(0, surplus)) this.#giveBack(index);
    this.#idleLow = this.#idle.length;
  }

  #giveBack(index: number): void {
    this.onGivenBack?.(index);
    this.#vacant.push(index);
  }
}
