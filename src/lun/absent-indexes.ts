import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { isConfigured } from '../io/nbd-sysfs.js';

/** More indexes than a kernel has devices of nbd. */
const INDEX_COUNT = 1 << 15;
const WORD_BITS = 32;
const WORDS = INDEX_COUNT / WORD_BITS;

/**
 * Indexes of removed devices whose disks may return. To the kernel such an index is free, and it
 * gives the lowest free one to the next disk; but mounts, files and pods still name the removed
 * disk by it, and would have another one. What one thread removes is absent for all threads before
 * the kernel hears of it: each thread has a bit for every index, which the others read.
 */
export class AbsentIndexes {
  #all: Int32Array = wordsOf(absentMemory(1));
  #own: Int32Array = this.#all;

  /** From now on with other threads: `part` of the memory is this one's. */
  share(memory: SharedArrayBuffer, part: number): void {
    this.#all = wordsOf(memory);
    this.#own = partOf(memory, part);
  }

  removed(index: number): void {
    Atomics.or(this.#own, wordOf(index), bitOf(index));
  }

  /** The disk has returned, or its session has ended. */
  over(index: number): void {
    Atomics.and(this.#own, wordOf(index), ~bitOf(index));
  }

  /**
   * Connects a disk that is new to the kernel: `connect` is called without an index while none is
   * absent, else with the lowest that is neither absent nor in use.
   */
  async connectNew<T>(connect: (index?: number) => Promise<T>): Promise<T> {
    if (this.#all.every((_word, at) => Atomics.load(this.#all, at) === 0)) return connect();
    for (let index = 0; index < INDEX_COUNT; index += 1) {
      if (this.#has(index) || (await isConfigured(index))) continue;
      try {
        return await connect(index);
      } catch (error) {
        // Another process was quicker.
        const isTaken = error instanceof UsageError && error.exitCode === EXIT_CODES.busy.code;
        if (!isTaken) throw error;
      }
    }
    throw new UsageError('No device of nbd is free.', { exitCode: EXIT_CODES.busy.code });
  }

  #has(index: number): boolean {
    for (let at = wordOf(index); at < this.#all.length; at += WORDS) {
      if ((Atomics.load(this.#all, at) & bitOf(index)) !== 0) return true;
    }
    return false;
  }
}

/** Those of this thread. */
export const absentIndexes = new AbsentIndexes();

/** For so many threads; no index is absent. */
export function absentMemory(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * WORDS * Int32Array.BYTES_PER_ELEMENT);
}

/** The thread of this part has ended, and the kernel keeps what it served: nothing is removed. */
export function forgetAbsent(memory: SharedArrayBuffer, part: number): void {
  const words = partOf(memory, part);
  for (let at = 0; at < words.length; at += 1) Atomics.store(words, at, 0);
}

function wordsOf(memory: SharedArrayBuffer): Int32Array {
  return new Int32Array(memory);
}

function partOf(memory: SharedArrayBuffer, part: number): Int32Array {
  return new Int32Array(memory, part * WORDS * Int32Array.BYTES_PER_ELEMENT, WORDS);
}

function wordOf(index: number): number {
  return Math.floor(index / WORD_BITS);
}

function bitOf(index: number): number {
  return 1 << (index % WORD_BITS);
}
