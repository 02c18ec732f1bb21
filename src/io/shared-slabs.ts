import { statfsSync } from 'node:fs';
import { errnoOf, invariant, UsageError } from '../base/errors.js';
import { SLAB_BYTES, type SlabPool } from '../base/slab.js';
import { MAPPING_BYTES, SharedFile, touchMapping, unmapBuffer } from './shared-memory.js';

/** An eighth of the file system is left to its other users: that of /run is the system's. */
const ROOM_LEFT_PART = 8;

/**
 * The file of a pool's slabs: slab i is 1 MiB at offset i MiB, and behind the last one there is a
 * byte for each slab that says whether it lies here (1) or in ordinary memory (0).
 */
function tableBytes(slabsMax: number): number {
  return Math.ceil(slabsMax / MAPPING_BYTES) * MAPPING_BYTES;
}

/**
 * Slabs of a pool in a file in memory, for the process that comes after this one. Where the system
 * has no room for one it is ordinary memory, and tried again when it is taken the next time.
 */
export class SharedSlabs {
  readonly #file: SharedFile;
  readonly #table: Buffer;
  readonly #mapped: (Buffer | undefined)[] = [];
  readonly #onUnshared: (reason: string) => void;
  #isTold = false;

  /**
   * Takes the memory of `pool` from `file`, which has `slabFileBytes`. The pool has made none yet,
   * and the addon knows it (`shareSlabs`). `onUnshared` is called once, when a slab is ordinary
   * memory. Throws what the system says when there is not even room for the table.
   */
  constructor(pool: SlabPool, file: SharedFile, onUnshared: (reason: string) => void) {
    invariant(pool.buffers.length === 0, 'slabs are shared after some were made');
    const { slabsMax } = pool;
    invariant(file.lengthBytes === slabFileBytes(slabsMax), 'a slab file of another length');
    this.#file = file;
    this.#onUnshared = onUnshared;
    file.reserve(slabsMax * SLAB_BYTES, tableBytes(slabsMax));
    this.#table = file.map(slabsMax * SLAB_BYTES, tableBytes(slabsMax));
    const drop = pool.onGivenBack;
    pool.memoryOf = (index, before) => this.#memoryOf(index, before);
    pool.onGivenBack = (index) => {
      if (this.isShared(index)) this.#file.punch(index * SLAB_BYTES, SLAB_BYTES);
      else drop?.(index);
    };
  }

  get path(): string {
    return this.#file.path;
  }

  /** The slab lies where the process that comes after this one finds it. */
  isShared(index: number): boolean {
    return this.#table[index] === 1;
  }

  #memoryOf(index: number, before: Buffer | null): Buffer {
    const failure = this.#reserve(index);
    this.#table[index] = failure === null ? 1 : 0;
    if (failure === null) {
      this.#mapped[index] ??= this.#file.map(index * SLAB_BYTES, SLAB_BYTES);
      const mapped = this.#mapped[index];
      touchMapping(mapped);
      return mapped;
    }
    if (!this.#isTold) this.#onUnshared(failure);
    this.#isTold = true;
    const isOrdinary = before !== null && before !== this.#mapped[index];
    return isOrdinary ? before : Buffer.allocUnsafeSlow(SLAB_BYTES);
  }

  /** Null with room for the slab in the file; else why there is none. */
  #reserve(index: number): string | null {
    try {
      const { bsize, blocks, bavail } = statfsSync(this.#file.path);
      const isTight = bsize * bavail - SLAB_BYTES < (bsize * blocks) / ROOM_LEFT_PART;
      if (isTight) return `${mib(bsize * bavail)} of ${mib(bsize * blocks)} MiB are free`;
      this.#file.reserve(index * SLAB_BYTES, SLAB_BYTES);
      return null;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === '') throw error;
      return errno;
    }
  }
}

/** Length of the slab file of a pool. It takes room only for slabs that exist. */
export function slabFileBytes(slabsMax: number): number {
  return slabsMax * SLAB_BYTES + tableBytes(slabsMax);
}

/** The slabs that a process has left, to be read. */
export class LeftSlabs {
  readonly #file: SharedFile;
  readonly #slabsMax: number;
  readonly #table: Buffer;
  readonly #mapped = new Map<number, Buffer>();

  private constructor(file: SharedFile, slabsMax: number) {
    this.#file = file;
    this.#slabsMax = slabsMax;
    this.#table = file.read(slabsMax * SLAB_BYTES, slabsMax);
  }

  /** Throws UsageError for a file that is none of a pool's, and what the system says. */
  static open(path: string): LeftSlabs {
    const file = SharedFile.open(path);
    try {
      const slabsMax = Math.floor(file.lengthBytes / SLAB_BYTES);
      if (slabsMax > 0 && file.lengthBytes === slabFileBytes(slabsMax)) {
        return new LeftSlabs(file, slabsMax);
      }
      throw new UsageError(`${path} has a length of ${file.lengthBytes} bytes`, {
        code: 'ERR_FOREIGN_FILE',
      });
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** The slab was in the file when its process ended. */
  has(index: number): boolean {
    return index >= 0 && index < this.#slabsMax && this.#table[index] === 1;
  }

  /** Memory of a slab, which must not be written. */
  slab(index: number): Buffer {
    invariant(this.has(index), `slab ${index} is not in ${this.#file.path}`);
    const known = this.#mapped.get(index);
    if (known !== undefined) return known;
    const mapped = this.#file.map(index * SLAB_BYTES, SLAB_BYTES);
    this.#mapped.set(index, mapped);
    return mapped;
  }

  /** Buffers of it have no bytes from then on. */
  close(): void {
    for (const mapped of this.#mapped.values()) unmapBuffer(mapped);
    this.#mapped.clear();
    this.#file.close();
  }
}

function mib(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}
