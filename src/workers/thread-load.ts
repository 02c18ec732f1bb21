import { readFileSync } from 'node:fs';
import { errnoOf } from '../base/errors.js';

/** A reading is over the time since the mark before the last one. */
const MARK_MS = 5000;

type Mark = { readonly atMs: number; readonly cpuNs: number };

/** How busy a thread of this process was in the last five to ten seconds: 1 is a processor. */
export class ThreadLoad {
  readonly #path: string;
  readonly #timer: NodeJS.Timeout;
  #before: Mark;
  #last: Mark;

  /** `path` is the thread's schedstat. */
  constructor(path: string) {
    this.#path = path;
    this.#last = this.#mark();
    this.#before = this.#last;
    // If only readings made marks, one after an hour without any would be an average of this hour.
    this.#timer = setInterval(() => {
      this.#before = this.#last;
      this.#last = this.#mark();
    }, MARK_MS).unref();
  }

  static ofThread(threadId: number): ThreadLoad {
    return new ThreadLoad(`/proc/self/task/${threadId}/schedstat`);
  }

  read(): number {
    const now = this.#mark();
    const ofMs = now.atMs - this.#before.atMs;
    return ofMs <= 0 ? 0 : Math.max(0, (now.cpuNs - this.#before.cpuNs) / 1e6 / ofMs);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** The first number is the time on a processor (Documentation/scheduler/sched-stats.rst). */
  #mark(): Mark {
    try {
      const cpuNs = Number(readFileSync(this.#path, 'latin1').split(' ')[0]);
      return { atMs: performance.now(), cpuNs: Number.isFinite(cpuNs) ? cpuNs : 0 };
    } catch (error) {
      if (errnoOf(error) === '') throw error;
      // The thread has just ended, or the kernel counts nothing.
      return { atMs: performance.now(), cpuNs: this.#last?.cpuNs ?? 0 };
    }
  }
}
