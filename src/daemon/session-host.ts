import type { ProductEvent } from '../config/contract.js';
import type { CallMethod } from '../control/control-connection.js';
import { controlMethods } from '../control/control-methods.js';
import { threadRuntime } from '../lun/runtime.js';
import { openSupervisor } from '../supervisor/open-supervisor.js';
import { type StatisticsView, viewStatistics } from '../supervisor/session-report.js';
import type { Supervisor } from '../supervisor/supervisor.js';
import { allStatistics, usableLuns, workerMethods } from '../workers/worker-methods.js';
import { WorkerPool, type WorkerPoolOptions, type WorkerView } from '../workers/worker-pool.js';

/** All sessions of a daemon, in whichever threads they are. */
export type SessionHost = Pick<
  Supervisor,
  'listen' | 'persistentLogins' | 'addPersistentLogin' | 'close'
> & {
  readonly call: CallMethod;
  restore(): Promise<void>;
  targetOf(sessionId: string): string | undefined;
  statistics(): Promise<readonly StatisticsView[]>;
  /** `<target>/<lun>` of each LUN that can be used. */
  usableLuns(): Promise<ReadonlySet<string>>;
  workers(): Promise<readonly WorkerView[]>;
  /** Resolves when every thread with sessions has responded; one that hangs never does. */
  responded(): Promise<void>;
};

/** In this thread, or with a `count` in workers. Those rejects if they cannot be started. */
export function openSessionHost(options: WorkerPoolOptions): Promise<SessionHost> {
  return options.count === 0 ? openHere(options) : openInWorkers(options);
}

async function openHere(options: WorkerPoolOptions): Promise<SessionHost> {
  const { log, surroundings, exportPlan, loginsMax, retainedDirectory, version } = options;
  const supervisor = await openSupervisor({
    retainedDirectory,
    surroundings,
    exportPlan,
    loginsMax,
    log,
  });
  const nowMs = () => threadRuntime().clock.nowMs();
  return {
    call: controlMethods({ supervisor, version, nowMs }),
    listen: (listener: (event: ProductEvent) => void) => supervisor.listen(listener),
    persistentLogins: () => supervisor.persistentLogins(),
    addPersistentLogin: (login) => supervisor.addPersistentLogin(login),
    restore: () => supervisor.restore(),
    close: () => supervisor.close(),
    targetOf: (id) =>
      supervisor.sessions.find(({ sessionId }) => sessionId === id)?.record.targetName,
    statistics: async () => supervisor.sessions.map((session) => viewStatistics(session, nowMs())),
    usableLuns: async () => usableHere(supervisor),
    workers: async () => [],
    responded: async () => undefined,
  };
}

function usableHere({ sessions }: Supervisor): ReadonlySet<string> {
  return new Set(
    sessions.flatMap((session) =>
      session.exports.map((entry) => `${session.plan.request.targetName}/${entry.lun}`),
    ),
  );
}

async function openInWorkers(options: WorkerPoolOptions): Promise<SessionHost> {
  const pool = await WorkerPool.start(options);
  return {
    call: workerMethods(pool),
    listen: (listener: (event: ProductEvent) => void) => pool.listen(listener),
    persistentLogins: () => pool.persistentLogins(),
    addPersistentLogin: (login) => pool.addPersistentLogin(login),
    restore: () => pool.restore(),
    close: () => pool.close(),
    targetOf: (id) => pool.targetOf(id),
    statistics: () => allStatistics(pool),
    usableLuns: () => usableLuns(pool),
    workers: () => pool.views(),
    responded: () => pool.responded(),
  };
}
