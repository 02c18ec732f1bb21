import { invariant } from '../base/errors.js';

/** Where a disk's bytes are. Offsets and lengths are bytes and already inside the disk. */
export interface DiskStore {
  readonly sizeBytes: number;
  /** Fills `into` from `offset` on; bytes never written read as zeros. */
  read(into: Buffer, offset: number): void;
  write(from: Uint8Array, offset: number): void;
  /** Makes the range read as zeros and gives back what memory it can. */
  unmap(offset: number, length: number): void;
  /** Whether the bytes at `offset` are mapped, and how far that holds, at most `lengthMax`. */
  extent(offset: number, lengthMax: number): { mapped: boolean; length: number };
  flush(): void;
  resize(sizeBytes: number): void;
  close(): void;
}

const CHUNK_BYTES = 65_536;
/** A chunk's allocation is known per cell, so that GET LBA STATUS is exact to 4 KiB. */
const CELL_BYTES = 4096;
const ALL_CELLS = 0xffff;
/** Missing chunks passed one by one before the next one there is gets looked up. */
const ABSENT_STEPS_MAX = 1024;

type Chunk = { readonly bytes: Buffer; cells: number };

function cellMask(start: number, end: number): number {
  const first = Math.floor(start / CELL_BYTES);
  const last = Math.floor((end - 1) / CELL_BYTES);
  return ((2 << last) - 1) & ~((1 << first) - 1);
}

/** Memory only where something was written, so that a disk of many TiB costs nothing. */
export class RamStore implements DiskStore {
  sizeBytes: number;
  readonly #chunks = new Map<number, Chunk>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  read(into: Buffer, offset: number): void {
    this.#walk(offset, into.length, (index, start, end, done) => {
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) into.fill(0, done, done + end - start);
      else chunk.bytes.copy(into, done, start, end);
    });
  }

  write(from: Uint8Array, offset: number): void {
    this.#walk(offset, from.length, (index, start, end, done) => {
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = { bytes: Buffer.alloc(CHUNK_BYTES), cells: 0 };
        this.#chunks.set(index, chunk);
      }
      chunk.bytes.set(from.subarray(done, done + end - start), start);
      chunk.cells |= cellMask(start, end);
    });
  }

  unmap(offset: number, length: number): void {
    // A huge range is cheaper by what is mapped than by what is requested.
    if (length / CHUNK_BYTES > this.#chunks.size) {
      for (const index of [...this.#chunks.keys()]) {
        const from = Math.max(offset, index * CHUNK_BYTES);
        const to = Math.min(offset + length, (index + 1) * CHUNK_BYTES);
        if (from < to) this.#unmapPart(index, from - index * CHUNK_BYTES, to - index * CHUNK_BYTES);
      }
      return;
    }
    this.#walk(offset, length, (index, start, end) => this.#unmapPart(index, start, end));
  }

  extent(offset: number, lengthMax: number): { mapped: boolean; length: number } {
    const mapped = this.#cellMapped(offset);
    const end = offset + lengthMax;
    let at = offset;
    let absent = 0;
    while (at < end && this.#cellMapped(at) === mapped) {
      const index = Math.floor(at / CHUNK_BYTES);
      if (this.#chunks.has(index)) {
        at = (Math.floor(at / CELL_BYTES) + 1) * CELL_BYTES;
        continue;
      }
      absent += 1;
      at = (absent < ABSENT_STEPS_MAX ? index + 1 : this.#chunkAfter(index)) * CHUNK_BYTES;
    }
    return { mapped, length: Math.min(at, end) - offset };
  }

  flush(): void {
    // Memory has nothing behind it.
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) this.unmap(sizeBytes, this.sizeBytes - sizeBytes);
    this.sizeBytes = sizeBytes;
  }

  close(): void {
    this.#chunks.clear();
  }

  /** Index of the first chunk there is after `index`; infinity when there is none. */
  #chunkAfter(index: number): number {
    let first = Number.POSITIVE_INFINITY;
    for (const each of this.#chunks.keys()) if (each > index && each < first) first = each;
    return first;
  }

  #cellMapped(offset: number): boolean {
    const chunk = this.#chunks.get(Math.floor(offset / CHUNK_BYTES));
    if (chunk === undefined) return false;
    return (chunk.cells & (1 << Math.floor((offset % CHUNK_BYTES) / CELL_BYTES))) !== 0;
  }

  #unmapPart(index: number, start: number, end: number): void {
    const chunk = this.#chunks.get(index);
    if (chunk === undefined) return;
    chunk.bytes.fill(0, start, end);
    const first = Math.ceil(start / CELL_BYTES) * CELL_BYTES;
    const last = Math.floor(end / CELL_BYTES) * CELL_BYTES;
    if (first < last) chunk.cells &= ~cellMask(first, last) & ALL_CELLS;
    if (chunk.cells === 0) this.#chunks.delete(index);
  }

  #walk(
    offset: number,
    length: number,
    visit: (index: number, start: number, end: number, done: number) => void,
  ): void {
    invariant(offset >= 0 && offset + length <= this.sizeBytes, 'range outside the store');
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const index = Math.floor(at / CHUNK_BYTES);
      const start = at % CHUNK_BYTES;
      const end = Math.min(CHUNK_BYTES, start + length - done);
      visit(index, start, end, done);
      done += end - start;
    }
  }
}
