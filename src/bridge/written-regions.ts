import type { ByteRange } from './block-device.js';

/** Regions of a disk: 8 KiB of memory, and a partition is seldom smaller than one of them. */
const REGIONS_MAX = 1024;

/**
 * Which parts of a disk were written to since when: for each of at most 1024 equal regions the
 * number of the last write that was acknowledged in it. Numbers only grow.
 */
export class WrittenRegions {
  readonly #last = new Float64Array(REGIONS_MAX);
  readonly #regionBytes: number;

  /** What a disk grows by later belongs to its last region. */
  constructor(sizeBytes: number) {
    this.#regionBytes = Math.max(1, Math.ceil(sizeBytes / REGIONS_MAX));
  }

  written(startBytes: number, lengthBytes: number, number: number): void {
    const first = this.#regionOf(startBytes);
    this.#last[first] = number;
    const endBytes = startBytes + lengthBytes;
    // Nearly every write lies in one region.
    if (endBytes <= (first + 1) * this.#regionBytes) return;
    const last = this.#regionOf(endBytes - 1);
    for (let region = first + 1; region <= last; region += 1) this.#last[region] = number;
  }

  /** It is unknown which: any may have been. */
  anyWritten(number: number): void {
    this.#last.fill(number);
  }

  /** Whether a write with a number over `number` touched a region that the range touches. */
  isWrittenSince(range: ByteRange, number: number): boolean {
    const last = this.#regionOf(range.endBytes - 1);
    for (let region = this.#regionOf(range.startBytes); region <= last; region += 1) {
      if ((this.#last[region] ?? 0) > number) return true;
    }
    return false;
  }

  #regionOf(offsetBytes: number): number {
    return Math.min(REGIONS_MAX - 1, Math.floor(offsetBytes / this.#regionBytes));
  }
}
