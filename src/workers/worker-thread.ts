import { parentPort, workerData } from 'node:worker_threads';
import { deferred } from '../base/deferred.js';
import { InvariantError } from '../base/errors.js';
import { createLog, type Logger } from '../config/log.js';
import { type CallMethod, faultOf } from '../control/control-connection.js';
import { controlMethods } from '../control/control-methods.js';
import { RpcCode } from '../control/control-protocol.js';
import { native } from '../io/native.js';
import { absentIndexes } from '../lun/absent-indexes.js';
import { nbdAddon } from '../lun/device-exporter.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { threadRuntime } from '../lun/runtime.js';
import type { DaemonSession } from '../supervisor/daemon-session.js';
import { OtherThreadError } from '../supervisor/neighbours.js';
import { pathOf } from '../supervisor/one-path.js';
import { openSupervisor } from '../supervisor/open-supervisor.js';
import { subjectOf } from '../supervisor/record-identity.js';
import { keyText } from '../supervisor/session-record.js';
import type { Supervisor } from '../supervisor/supervisor.js';
import { RefusedError, WorkerChannel } from './worker-channel.js';
import type {
  LogLevelName,
  Placement,
  ToMain,
  ToWorker,
  WorkerSetup,
  WorkerUsage,
} from './worker-protocol.js';

type Channel = WorkerChannel<ToMain, ToWorker>;

/** What methods may do with a client that is in another thread: nothing. */
const ABSENT_CLIENT = { notify: () => undefined, onGone: () => undefined };

/** A supervisor of its own in a worker thread, with all that its sessions need, until the end. */
export async function runWorker(): Promise<void> {
  if (parentPort === null) throw new InvariantError('this is the main thread');
  // The main thread of this program has made it.
  const setup = workerData as WorkerSetup;
  if (setup.processors !== undefined) nbdAddon.setThreadAffinity(setup.processors);
  native.setBusyPoll(setup.busyPollMicroseconds);
  absentIndexes.share(setup.absentIndexes, setup.index);
  const started = deferred<WorkerThread>();
  const channel: Channel = new WorkerChannel(parentPort, {
    told: () => undefined,
    asked: async (body) => {
      const thread = await started.promise;
      try {
        return await thread.asked(body);
      } finally {
        // After the answer is on its way.
        if (body.type === 'close') setImmediate(() => process.exit());
      }
    },
  });
  started.resolve(await WorkerThread.start(setup, channel));
  channel.tell({ type: 'ready', threadId: nbdAddon.threadId() });
}

class WorkerThread {
  readonly #supervisor: Supervisor;
  readonly #call: CallMethod;
  readonly #log: Logger;

  private constructor(supervisor: Supervisor, log: Logger, version: string) {
    this.#supervisor = supervisor;
    this.#log = log;
    const nowMs = () => threadRuntime().clock.nowMs();
    this.#call = controlMethods({ supervisor, version, nowMs });
  }

  static async start(setup: WorkerSetup, channel: Channel): Promise<WorkerThread> {
    const { retainedDirectory, surroundings, exportPlan, loginsMax } = setup;
    const log = logTo(channel);
    const supervisor = await openSupervisor({
      retainedDirectory,
      surroundings,
      exportPlan,
      loginsMax,
      log,
      neighbours: {
        begun: (key) => channel.tell({ type: 'begun', key }),
        over: (key) => channel.tell({ type: 'over', key }),
        disksHere: (session, disks) => disksHere(channel, session, disks),
      },
    });
    supervisor.listen((event) => {
      const session = supervisor.sessions.find(({ sessionId }) => sessionId === event.sessionId);
      const target = session?.record.targetName;
      channel.tell({ type: 'event', event, ...(target === undefined ? {} : { target }) });
    });
    return new WorkerThread(supervisor, log, setup.version);
  }

  async asked(body: ToWorker): Promise<unknown> {
    try {
      return await this.#answer(body);
    } catch (error) {
      if (error instanceof OtherThreadError) throw new RefusedError({ moveTo: error.worker });
      const fault = faultOf(error);
      if (fault.code === RpcCode.internalError) {
        this.#log.error({ err: error }, 'a control method broke');
      }
      throw new RefusedError({ fault });
    }
  }

  async #answer(body: ToWorker): Promise<unknown> {
    const supervisor = this.#supervisor;
    switch (body.type) {
      case 'call':
        return this.#call(body.request, ABSENT_CLIENT);
      case 'owns': {
        const { sessionId } = body;
        const has = supervisor.sessions.some((session) => session.sessionId === sessionId);
        return has || pathOf(supervisor.sessions, sessionId) !== null;
      }
      case 'persist':
        return supervisor.addPersistentLogin(body.login);
      case 'restore':
        return supervisor.restore(new Set(body.keys));
      case 'usage':
        return usage();
      case 'close':
        return supervisor.close();
    }
  }
}

function usage(): WorkerUsage {
  const { heapTotal, external } = process.memoryUsage();
  return { heapBytes: heapTotal, externalBytes: external };
}

/** Those of the disks that no session of another thread has. */
async function disksHere(
  channel: Channel,
  session: DaemonSession,
  disks: readonly FoundDisk[],
): Promise<readonly FoundDisk[]> {
  const answer = await channel.ask({
    type: 'place',
    key: keyText(subjectOf(session.plan)),
    targetName: session.plan.request.targetName,
    sessionId: session.sessionId,
    disks,
    own: session.record.disks.map(({ lun }) => lun),
    mayMove: !session.hasOpened,
  });
  // The main thread answers as the protocol's table says.
  const placement = answer as Placement;
  if ('moveTo' in placement) throw new OtherThreadError(placement.moveTo);
  const { leaveOut, warnings } = placement;
  for (const warning of warnings) session.stack.warn(warning);
  for (const lun of leaveOut) {
    session.stack.warn(
      `LUN ${lun} is a disk of a session in another worker and stays out: log this session out ` +
        'and in again, so that both are in one worker',
    );
  }
  return disks.filter(({ lun }) => !leaveOut.includes(lun));
}

const LEVELS: Readonly<Record<number, LogLevelName>> = { 40: 'warn', 50: 'error', 60: 'error' };

/** A log whose records the main thread writes. */
function logTo(channel: Channel): Logger {
  const stream = {
    write(line: string) {
      // It is a record of the log that is made here.
      const { level, time, msg, ...facts } = JSON.parse(line) as Record<string, unknown>;
      const name = LEVELS[Number(level)] ?? 'info';
      channel.tell({ type: 'log', level: name, facts, message: String(msg ?? '') });
    },
  };
  return createLog({ level: 'info', pretty: false, stream });
}
