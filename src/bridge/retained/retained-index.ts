import { invariant } from '../../base/errors.js';

/** Entries of one index: 64 MiB of writes of 4 KiB. */
export const RETAINED_ENTRIES_MAX = 16_384;
/** Pieces of slabs that one entry names; a write in more of them has several entries. */
export const ENTRY_PIECES_MAX = 4;

/** Words (32 bits) of the header, and of an entry. */
const HEADER_WORDS = 16;
const ENTRY_WORDS = 22;
/** Bytes of memory that an index needs, aligned to 8. */
export const RETAINED_INDEX_BYTES = (HEADER_WORDS + RETAINED_ENTRIES_MAX * ENTRY_WORDS) * 4;

/** Words of the header. */
const HEAD = 0;
const IS_NOT_WHOLE = 1;
/** Words of an entry; offset, length and number are doubles. */
const COMMIT = 0;
const KIND = 1;
const OFFSET = 2;
const LENGTH = 4;
const NUMBER = 6;
const PIECE_COUNT = 8;
const PIECES = 9;

/**
 * What an entry says of its range:
 * - `data`: an acknowledged write, whose bytes the pieces name;
 * - `zeroes`, `zeroesAllocated`: an acknowledged write of zeros (the second keeps the blocks
 *   allocated);
 * - `stable`: what is there is newer than any entry before it, and needs no repetition (a FUA
 *   write), or is of no interest any more (a trim).
 */
export const RetainedKind = { data: 1, zeroes: 2, zeroesAllocated: 3, stable: 4 } as const;

/** One entry as it is read back. Pieces are (slab, offset, length) triples. */
export type RetainedEntry = {
  readonly kind: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly pieces: readonly number[];
};

/**
 * Which acknowledged writes no flush has covered yet: a ring of entries in memory of a fixed size,
 * which may be shared with the process that comes after this one. The word that makes an entry
 * valid is stored last, and the place of the first entry that counts is one word, so that at any
 * instant at which this process is killed an entry is there as a whole or not at all.
 */
export class RetainedIndex {
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  /** Positions count up without end, modulo 2^32; a position's slot is its remainder. */
  #head = 0;
  #tail = 0;
  /** First word of the entry that is being written. */
  #open = 0;
  #pieces = 0;

  /** `memory` is RETAINED_INDEX_BYTES of zeros, aligned to 8. */
  constructor(memory: Uint8Array) {
    invariant(memory.byteLength === RETAINED_INDEX_BYTES, 'memory of another size');
    this.#words = wordsOf(memory);
    this.#doubles = doublesOf(memory);
  }

  get count(): number {
    return (this.#tail - this.#head) >>> 0;
  }

  /** False: not all that should be retained is here, and a later process must not rely on it. */
  setWhole(isWhole: boolean): void {
    Atomics.store(this.#words, IS_NOT_WHOLE, isWhole ? 0 : 1);
  }

  /** Begins the next entry, of which there must be room; `commit` makes it count. */
  begin(kind: number, offsetBytes: number, lengthBytes: number): void {
    const at = HEADER_WORDS + (this.#tail % RETAINED_ENTRIES_MAX) * ENTRY_WORDS;
    this.#open = at;
    this.#pieces = 0;
    this.#words[at + KIND] = kind;
    this.#doubles[(at + OFFSET) >> 1] = offsetBytes;
    this.#doubles[(at + LENGTH) >> 1] = lengthBytes;
  }

  piece(slab: number, offset: number, length: number): void {
    const at = this.#open + PIECES + 3 * this.#pieces;
    this.#words[at] = slab;
    this.#words[at + 1] = offset;
    this.#words[at + 2] = length;
    this.#pieces += 1;
  }

  /** `number` says which flushes cover the entry: those that began when it was counted already. */
  commit(number: number): void {
    const at = this.#open;
    this.#words[at + PIECE_COUNT] = this.#pieces;
    this.#doubles[(at + NUMBER) >> 1] = number;
    this.#tail = (this.#tail + 1) >>> 0;
    Atomics.store(this.#words, at + COMMIT, this.#tail);
  }

  /** Number of the oldest entry, of which there must be one. */
  get oldestNumber(): number {
    return this.#doubles[(this.#at(this.#head) + NUMBER) >> 1] ?? 0;
  }

  /**
   * Drops the oldest entry, and calls `release` for the slab of each piece of it once no later
   * process would read them any more. Returns the bytes that its pieces had.
   */
  dropOldest(release: (slab: number) => void): number {
    const at = this.#at(this.#head);
    this.#head = (this.#head + 1) >>> 0;
    Atomics.store(this.#words, HEAD, this.#head);
    const count = this.#words[at + PIECE_COUNT] ?? 0;
    let bytes = 0;
    for (let piece = at + PIECES; piece < at + PIECES + 3 * count; piece += 3) {
      bytes += this.#words[piece + 2] ?? 0;
      release(this.#words[piece] ?? 0);
    }
    return bytes;
  }

  /** All that is retained, oldest first. */
  entries(): RetainedEntry[] {
    const found: RetainedEntry[] = [];
    for (let position = this.#head; position !== this.#tail; position = (position + 1) >>> 0) {
      found.push(entryAt(this.#words, this.#doubles, this.#at(position)));
    }
    return found;
  }

  #at(position: number): number {
    return HEADER_WORDS + (position % RETAINED_ENTRIES_MAX) * ENTRY_WORDS;
  }
}

/**
 * What is retained by the index of a process that is gone, oldest first; null when it says that
 * this is not all. Nothing else of its memory is believed: numbers that make no sense end it.
 */
export function readRetainedIndex(memory: Uint8Array): RetainedEntry[] | null {
  if (memory.byteLength !== RETAINED_INDEX_BYTES) return null;
  const words = wordsOf(memory);
  const doubles = doublesOf(memory);
  if (words[IS_NOT_WHOLE] !== 0) return null;
  const found: RetainedEntry[] = [];
  const head = (words[HEAD] ?? 0) >>> 0;
  for (let taken = 0; taken < RETAINED_ENTRIES_MAX; taken += 1) {
    const position = (head + taken) >>> 0;
    const at = HEADER_WORDS + (position % RETAINED_ENTRIES_MAX) * ENTRY_WORDS;
    if ((words[at + COMMIT] ?? 0) >>> 0 !== (position + 1) >>> 0) break;
    const entry = entryAt(words, doubles, at);
    if (!isSound(entry)) return null;
    found.push(entry);
  }
  return found;
}

/** True if one could have written it: in whole bytes, with the data that its kind has. */
function isSound({ kind, offsetBytes, lengthBytes, pieces }: RetainedEntry): boolean {
  const isRange = isCount(offsetBytes) && isCount(lengthBytes) && lengthBytes > 0;
  if (!isRange || pieces.length > 3 * ENTRY_PIECES_MAX) return false;
  let bytes = 0;
  for (const [at, value] of pieces.entries()) {
    if (value < 0) return false;
    if (at % 3 === 2) bytes += value;
  }
  if (kind === RetainedKind.data) return bytes === lengthBytes;
  return bytes === 0 && kind > RetainedKind.data && kind <= RetainedKind.stable;
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0;
}

function entryAt(words: Int32Array, doubles: Float64Array, at: number): RetainedEntry {
  const count = Math.min(Math.max(0, words[at + PIECE_COUNT] ?? 0), ENTRY_PIECES_MAX);
  return {
    kind: words[at + KIND] ?? 0,
    offsetBytes: doubles[(at + OFFSET) >> 1] ?? 0,
    lengthBytes: doubles[(at + LENGTH) >> 1] ?? 0,
    pieces: [...words.subarray(at + PIECES, at + PIECES + 3 * count)],
  };
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Int32Array {
  return new Int32Array(buffer, byteOffset, byteLength / 4);
}

function doublesOf({ buffer, byteOffset, byteLength }: Uint8Array): Float64Array {
  return new Float64Array(buffer, byteOffset, byteLength / 8);
}
