import { Worker } from 'node:worker_threads';
import { type Deferred, deferred } from '../base/deferred.js';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { ThreadLoad } from './thread-load.js';
import { WorkerChannel } from './worker-channel.js';
import type { ToMain, ToWorker, WorkerSetup } from './worker-protocol.js';

/** A worker that lived as long starts again at once. */
const LIVED_MS = 10_000;
const RESTART_MS_MIN = 1000;
const RESTART_MS_MAX = 30_000;

export type WorkerHooks = {
  readonly told: (worker: number, body: ToMain) => void;
  readonly asked: (worker: number, body: ToMain) => Promise<unknown>;
  /** It has ended without having been closed. */
  readonly ended: (worker: number, why: string) => void;
};

/** One worker as the main thread has it, over all the threads that are it one after the other. */
export class WorkerHandle {
  readonly index: number;
  restarts = 0;
  readonly #entry: string;
  readonly #setup: WorkerSetup;
  readonly #hooks: WorkerHooks;
  #ready: Deferred<void> = deferred();
  #starting: Deferred<void> = deferred();
  #isReady = false;
  #channel: WorkerChannel<ToWorker, ToMain> | null = null;
  #load: ThreadLoad | null = null;
  #startedAtMs = 0;
  #delayMs = 0;
  #isClosing = false;
  #whenEnded: Promise<void> = Promise.resolve();

  /** `entry` is the program. */
  constructor(setup: WorkerSetup, entry: string, hooks: WorkerHooks) {
    this.index = setup.index;
    this.#setup = setup;
    this.#entry = entry;
    this.#hooks = hooks;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** 1 is a whole processor. */
  get load(): number {
    return this.#load?.read() ?? 0;
  }

  /** Starts a thread; resolves when it can be asked, rejects if it ends before. */
  start(): Promise<void> {
    this.#startedAtMs = performance.now();
    const worker = new Worker(this.#entry, { workerData: this.#setup });
    const channel = new WorkerChannel<ToWorker, ToMain>(worker, {
      told: (body) => this.#told(body),
      asked: (body) => this.#hooks.asked(this.index, body),
    });
    this.#channel = channel;
    let why = '';
    worker.on('error', (error) => {
      why = `: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
    });
    this.#whenEnded = new Promise((resolve) => {
      worker.once('exit', () => {
        resolve();
        this.#ended(channel, `worker ${this.index} has ended${why}`);
      });
    });
    this.#starting = deferred();
    return this.#starting.promise;
  }

  /** How long it is waited until `start` is called again. */
  nextDelayMs(): number {
    const lived = performance.now() - this.#startedAtMs;
    if (lived >= LIVED_MS) this.#delayMs = 0;
    const delayMs = this.#delayMs;
    this.#delayMs = Math.min(RESTART_MS_MAX, Math.max(RESTART_MS_MIN, delayMs * 2));
    this.restarts += 1;
    return delayMs;
  }

  /** Waits for a worker that is starting. Rejects with RefusedError, or UsageError 20. */
  async ask(body: ToWorker): Promise<unknown> {
    await this.#ready.promise;
    return this.#channel?.ask(body);
  }

  /** Logs its sessions out, or leaves them; then the thread ends. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (!this.#isReady) return;
    try {
      await this.#channel?.ask({ type: 'close' });
    } finally {
      await this.#whenEnded;
    }
  }

  #told(body: ToMain): void {
    if (body.type === 'ready') {
      this.#load = ThreadLoad.ofThread(body.threadId);
      this.#isReady = true;
      this.#ready.resolve();
      this.#starting.resolve();
      return;
    }
    this.#hooks.told(this.index, body);
  }

  #ended(channel: WorkerChannel<ToWorker, ToMain>, why: string): void {
    channel.close(why.split('\n')[0] ?? why);
    const wasReady = this.#isReady;
    this.#isReady = false;
    this.#load?.close();
    this.#load = null;
    if (this.#isClosing) return;
    this.#starting.reject(new UsageError(why, { exitCode: EXIT_CODES.error.code }));
    if (wasReady) this.#ready = deferred();
    this.#hooks.ended(this.index, why);
  }
}
