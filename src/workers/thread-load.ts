import { readFileSync } from 'node:fs';
import { errnoOf } from '../base/errors.js';

/** A reading is over the time since one that is at least so old. */
const WINDOW_MS = 5000;

type Mark = { readonly atMs: number; readonly cpuNs: number };

/** How busy a thread of this process is: 1 is a whole processor. */
export class ThreadLoad {
  readonly #path: string;
  #before: Mark;
  #now: Mark;

  constructor(threadId: number) {
    this.#path = `/proc/self/task/${threadId}/schedstat`;
    this.#now = this.#mark();
    this.#before = this.#now;
  }

  /** Over the last five to ten seconds. */
  read(): number {
    const now = this.#mark();
    const ofMs = now.atMs - this.#before.atMs;
    const load = ofMs <= 0 ? 0 : (now.cpuNs - this.#before.cpuNs) / 1e6 / ofMs;
    if (now.atMs - this.#now.atMs >= WINDOW_MS) {
      this.#before = this.#now;
      this.#now = now;
    }
    return Math.max(0, load);
  }

  /** The first number is the time on a processor (Documentation/scheduler/sched-stats.rst). */
  #mark(): Mark {
    try {
      const cpuNs = Number(readFileSync(this.#path, 'latin1').split(' ')[0]);
      return { atMs: performance.now(), cpuNs: Number.isFinite(cpuNs) ? cpuNs : 0 };
    } catch (error) {
      if (errnoOf(error) === '') throw error;
      // The thread has just ended, or the kernel counts nothing.
      return { atMs: performance.now(), cpuNs: this.#now?.cpuNs ?? 0 };
    }
  }
}
