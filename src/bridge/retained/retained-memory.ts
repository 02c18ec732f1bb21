import type { RetainedEntry } from './retained-index.js';

/** What all disks of a thread may retain together, an eighth of its slabs; one disk at least. */
const SHARED_BYTES_MAX = 512 << 20;
const DISK_BYTES_MIN = 1 << 20;

/** Disks of one thread that retain writes: each may have its part of the memory. */
export class RetainedShare {
  disks = 0;

  bytesFor(wantedBytes: number): number {
    const part = Math.floor(SHARED_BYTES_MAX / Math.max(1, this.disks));
    return Math.min(wantedBytes, Math.max(DISK_BYTES_MIN, part));
  }
}

/** What a process before this one retained, and where the bytes are. */
export type RecoveredWrites = {
  readonly entries: readonly RetainedEntry[];
  /** Memory of a slab of that process. */
  readonly slab: (index: number) => Uint8Array;
  /** All of it has been written again, or is of no use any more. */
  readonly drained: () => void;
};

/** Memory for the indexes of one session's LUNs, which the process that comes next finds. */
export interface RetainedMemory {
  /** There is a disk of the LUN, of which nothing is retained yet. */
  begin(lun: number): void;
  /** RETAINED_INDEX_BYTES of zeros; null if they cannot be had: what is retained ends with us. */
  open(lun: number): Uint8Array | null;
  /**
   * The disk is closed. `release` gives back what its index names: not before the next process has
   * no use for it, that is, never, if it is left to that one.
   */
  closed(lun: number, release: () => void): void;
  /** All that processes before this one retained of it, oldest first; null if that is unknown. */
  recover(lun: number): readonly RecoveredWrites[] | null;
}
