import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { isConfigured } from '../io/nbd-sysfs.js';

/** More indexes than a kernel has devices of nbd. */
const INDEX_MAX = 1 << 15;

/**
 * Indexes of removed devices whose disks may return. To the kernel such an index is free, and it
 * gives the lowest free one to the next disk; but mounts, files and pods still name the removed
 * disk by it, and would have another one.
 */
export class AbsentIndexes {
  readonly #absent = new Set<number>();

  removed(index: number): void {
    this.#absent.add(index);
  }

  /** The disk has returned, or its session has ended. */
  over(index: number): void {
    this.#absent.delete(index);
  }

  /**
   * Connects a disk that is new to the kernel: `connect` is called without an index while none is
   * absent, else with the lowest that is neither absent nor in use.
   */
  async connectNew<T>(connect: (index?: number) => Promise<T>): Promise<T> {
    if (this.#absent.size === 0) return connect();
    for (let index = 0; index <= INDEX_MAX; index += 1) {
      if (this.#absent.has(index) || (await isConfigured(index))) continue;
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
}
