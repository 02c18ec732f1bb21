import { setTimeout as sleep } from 'node:timers/promises';
import { isForeignFault } from '../base/errors.js';
import type { ProductEvent } from '../config/contract.js';
import type { Logger } from '../config/log.js';
import { absentMemory, forgetAbsent } from '../lun/absent-indexes.js';
import { stampedEvent } from '../session/stamped-event.js';
import { subjectOf } from '../supervisor/record-identity.js';
import { type LoginParams, resolveLogin } from '../supervisor/resolved-login.js';
import { keyText, type SessionRecord } from '../supervisor/session-record.js';
import { SessionRecords } from '../supervisor/session-records.js';
import { LoginHomes } from './login-homes.js';
import { spreadOver } from './restored-logins.js';
import { RefusedError } from './worker-channel.js';
import { WorkerHandle } from './worker-handle.js';
import type { ToMain, ToWorker, WorkerSetup, WorkerUsage } from './worker-protocol.js';

/** Loads that differ by less are equal: then the number of sessions decides. */
const LOAD_STEP = 0.25;

export type WorkerPoolOptions = Omit<WorkerSetup, 'index' | 'processors' | 'absentIndexes'> & {
  readonly count: number;
  /** They are shared out to the workers, if there are enough. */
  readonly cpuAffinity?: readonly number[];
  /** The program, which every worker runs as well. */
  readonly entry: string;
  readonly log: Logger;
};

export type WorkerView = {
  readonly worker: number;
  readonly load: number;
  readonly sessions: number;
  readonly restarts: number;
  readonly usage: WorkerUsage | null;
};

/** The workers of a daemon, and what only one of them can do: all of it in the main thread. */
export class WorkerPool {
  readonly homes = new LoginHomes();
  readonly #options: WorkerPoolOptions;
  readonly #workers: readonly WorkerHandle[];
  readonly #records: SessionRecords;
  readonly #listeners = new Set<(event: ProductEvent) => void>();
  /** Sessions that have been heard of, for the log and for the end of a worker. */
  readonly #heard = new Map<string, { readonly worker: number; readonly target: string }>();
  readonly #ending = new AbortController();
  readonly #absentIndexes: SharedArrayBuffer;

  private constructor(options: WorkerPoolOptions) {
    this.#options = options;
    const { count, entry, cpuAffinity = [], log: _log, ...setup } = options;
    this.#absentIndexes = absentMemory(count);
    const shared = { ...setup, absentIndexes: this.#absentIndexes };
    this.#records = new SessionRecords(options.surroundings.stateDirectory);
    this.#workers = Array.from({ length: count }, (_none, index) => {
      const processors = partOf(cpuAffinity, index, count);
      const own = { ...shared, index, ...(processors === null ? {} : { processors }) };
      return new WorkerHandle(own, entry, {
        told: (worker, body) => this.#told(worker, body),
        asked: (worker, body) => this.#asked(worker, body),
        ended: (worker, why) => this.#ended(worker, why),
      });
    });
  }

  /** Rejects if a worker ends before it can be asked. */
  static async start(options: WorkerPoolOptions): Promise<WorkerPool> {
    const pool = new WorkerPool(options);
    await Promise.all(pool.#workers.map((worker) => worker.start()));
    return pool;
  }

  get version(): string {
    return this.#options.version;
  }

  /** Those that can be asked now. */
  get ready(): readonly WorkerHandle[] {
    return this.#workers.filter((worker) => worker.isReady);
  }

  listen(listener: (event: ProductEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  targetOf(sessionId: string): string | undefined {
    return this.#heard.get(sessionId)?.target;
  }

  /** The worker that has the least to do. */
  leastLoaded(): WorkerHandle {
    const usable = this.ready.length > 0 ? this.ready : this.#workers;
    const ranked = usable.map((worker) => ({
      worker,
      load: Math.floor(worker.load / LOAD_STEP),
      logins: this.homes.keysOf(worker.index).length,
    }));
    ranked.sort((a, b) => a.load - b.load || a.logins - b.logins);
    const [first] = ranked;
    if (first === undefined) throw new RangeError('a pool has a worker');
    return first.worker;
  }

  loadOf(index: number): number {
    return this.#workers[index]?.load ?? 0;
  }

  keyOf(login: LoginParams): string {
    return keyText(subjectOf(resolveLogin(login, this.#options.surroundings)));
  }

  keyOfRecord(record: SessionRecord): string {
    return keyText(record);
  }

  /** Asks the worker that has the login of this key, or is to have it, wherever it moves. */
  async askHome(key: string, body: ToWorker): Promise<{ result: unknown; worker: number }> {
    const home = this.homes.workerOf(key) ?? this.leastLoaded().index;
    this.homes.enter(key, home);
    try {
      for (;;) {
        const worker = this.homes.workerOf(key) ?? home;
        try {
          return { result: await this.#workers[worker]?.ask(body), worker };
        } catch (error) {
          if (!(error instanceof RefusedError && 'moveTo' in error.refusal)) throw error;
          await this.homes.moved(key);
        }
      }
    } finally {
      this.homes.leave(key);
    }
  }

  /** The worker that has a session or path of this ID; null: none has. */
  async ownerOf(sessionId: string): Promise<WorkerHandle | null> {
    const { ready } = this;
    const answers = await Promise.allSettled(
      ready.map((worker) => worker.ask({ type: 'owns', sessionId })),
    );
    const at = answers.findIndex((each) => each.status === 'fulfilled' && each.value === true);
    return ready[at] ?? null;
  }

  /** What each worker answers; one that has just ended says nothing. */
  async askAll(body: ToWorker): Promise<readonly { worker: number; result: unknown }[]> {
    const { ready } = this;
    const answers = await Promise.allSettled(ready.map((worker) => worker.ask(body)));
    return answers.flatMap((answer, at) => {
      if (answer.status === 'fulfilled') {
        return [{ worker: ready[at]?.index ?? 0, result: answer.value }];
      }
      if (isForeignFault(answer.reason)) return [];
      throw answer.reason;
    });
  }

  /** Resolves when each worker has responded or ended: one that hangs does neither. */
  async responded(): Promise<void> {
    await Promise.allSettled(this.ready.map((worker) => worker.ask({ type: 'usage' })));
  }

  async views(): Promise<readonly WorkerView[]> {
    return Promise.all(
      this.#workers.map(async (worker) => ({
        worker: worker.index,
        load: worker.load,
        sessions: this.homes.keysOf(worker.index).length,
        restarts: worker.restarts,
        usage: worker.isReady
          ? await worker.ask({ type: 'usage' }).then(
              (usage) => usage as WorkerUsage,
              () => null,
            )
          : null,
      })),
    );
  }

  async persistentLogins(): Promise<readonly SessionRecord[]> {
    return (await this.#load()).filter(({ persistent }) => persistent);
  }

  async addPersistentLogin(login: LoginParams): Promise<SessionRecord> {
    const { result } = await this.askHome(this.keyOf(login), { type: 'persist', login });
    // The protocol's table has it.
    return result as SessionRecord;
  }

  /** Has every login that is to be there logged in again, spread over the workers. */
  async restore(): Promise<void> {
    const records = await this.#load();
    const places = spreadOver(records, this.#workers.length);
    // All are known before the first one begins, so that none is taken for another's disk.
    for (const record of records) {
      this.homes.assign(record, places.get(keyText(record)) ?? 0);
    }
    await Promise.all(this.#workers.map((worker) => this.#restoreIn(worker)));
  }

  /** Closes every worker in order; rejects with the first failure after all are closed. */
  async close(): Promise<void> {
    this.#ending.abort();
    const closing = this.#workers.map((worker) => worker.close());
    for (const end of await Promise.allSettled(closing)) {
      if (end.status === 'rejected') throw end.reason;
    }
  }

  async #load(): Promise<readonly SessionRecord[]> {
    const { records, broken } = await this.#records.load();
    const words = 'a login record is broken and was set aside';
    for (const record of broken) this.#options.log.error(record, words);
    return records;
  }

  async #restoreIn(worker: WorkerHandle, keys = this.homes.keysOf(worker.index)): Promise<void> {
    await worker.ask({ type: 'restore', keys });
    this.homes.settle(worker.index);
  }

  #told(worker: number, body: ToMain): void {
    switch (body.type) {
      case 'begun':
        this.homes.begun(body.key, worker);
        return;
      case 'over':
        this.#over(body.key, worker);
        return;
      case 'event':
        this.#event(worker, body);
        return;
      case 'log':
        this.#options.log[body.level](body.facts, body.message);
    }
  }

  #over(key: string, worker: number): void {
    const moveTo = this.homes.over(key, worker);
    const next = moveTo === null ? undefined : this.#workers[moveTo];
    if (next === undefined) return;
    // One that a client waits for is begun by its request; others by their record.
    this.#restoreIn(next, [key]).catch((error: unknown) => this.#failed(error));
  }

  #event(worker: number, { event, target }: Extract<ToMain, { type: 'event' }>): void {
    if (target !== undefined) this.#heard.set(event.sessionId, { worker, target });
    this.#publish(event);
    if (event.event === 'closed') this.#heard.delete(event.sessionId);
  }

  async #asked(worker: number, body: ToMain): Promise<unknown> {
    if (body.type !== 'place') return null;
    return this.homes.place(body.key, worker, body);
  }

  /** Its devices wait in the kernel, and the next thread takes them over. */
  #ended(index: number, why: string): void {
    const { log } = this.#options;
    log.error({ worker: index }, `${why}; its sessions are taken over by the next thread`);
    this.homes.lost(index);
    forgetAbsent(this.#absentIndexes, index);
    for (const [sessionId, { worker }] of [...this.#heard]) {
      if (worker !== index) continue;
      const message = `${why.split('\n')[0]}: the next thread takes the session over`;
      this.#publish(stampedEvent({ event: 'warning', message }, sessionId));
      this.#heard.delete(sessionId);
    }
    this.#startAgain(index).catch((error: unknown) => this.#failed(error));
  }

  async #startAgain(index: number): Promise<void> {
    const worker = this.#workers[index];
    const { signal } = this.#ending;
    if (worker === undefined || signal.aborted) return;
    await sleep(worker.nextDelayMs(), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    await worker.start();
    await this.#restoreIn(worker);
  }

  /** A worker that ends again meanwhile is started again by its own end. */
  #failed(error: unknown): void {
    if (!isForeignFault(error) && !(error instanceof RefusedError)) throw error;
    this.#options.log.error({ reason: error.message }, 'sessions of a worker are not restored');
  }

  #publish(event: ProductEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

/** The part of the processors that a worker has for itself; null if there are too few. */
function partOf(processors: readonly number[], index: number, count: number): number[] | null {
  if (processors.length < count) return null;
  const at = (worker: number) => Math.floor((worker * processors.length) / count);
  return processors.slice(at(index), at(index + 1));
}
