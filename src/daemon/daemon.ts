import { mkdir } from 'node:fs/promises';
import type { Server } from 'node:http';
import { UsageError } from '../base/errors.js';
import type { BootSource } from '../boot/boot-source.js';
import { type BootFrom, readBootSource } from '../boot/read-boot-source.js';
import { loadConfig } from '../config/config.js';
import type { Logger } from '../config/log.js';
import { controlMethods } from '../control/control-methods.js';
import { ControlServer } from '../control/control-server.js';
import { protectFromOomKiller } from '../io/oom-protection.js';
import { nbdAddon } from '../lun/device-exporter.js';
import { applyProcessSettings } from '../lun/process-settings.js';
import { openRetainedStore, retainedDirectoryOf } from '../lun/retained-store.js';
import { threadRuntime } from '../lun/runtime.js';
import type { DaemonEnvironment } from '../supervisor/resolved-login.js';
import { Supervisor } from '../supervisor/supervisor.js';
import { keepBootLogin, withBootChap } from './boot-login.js';
import { SessionLogs } from './event-log.js';
import { metricsOf, serveMetrics } from './metrics.js';
import { StateLock } from './state-lock.js';
import { SystemdNotify } from './systemd-notify.js';
import { parseWantedLuns, waitForLuns } from './wait-for-luns.js';

type DaemonOptions = {
  readonly controlPath: string;
  readonly stateDirectory: string;
  readonly configPath?: string;
  /** LUNs are served on sockets in here; absent: they become kernel devices. */
  readonly socketDirectory?: string;
  readonly metricsListen?: string;
  /** As `--cpu-affinity` and `--busy-poll` have it; else the configuration's. */
  readonly cpuAffinity?: string;
  readonly busyPoll?: string;
  /** `<target>/<lun>`, ready only when all of them are there. */
  readonly waitFor: readonly string[];
  /** Holds the LUN that the system starts from, as well. */
  readonly bootFrom?: BootFrom;
  /** A living daemon with this state is made to leave its devices to this one. */
  readonly takeOver: boolean;
  readonly waitTimeoutSeconds: number;
  readonly loginsMax: number;
  readonly version: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
};

function surroundingsOf(options: DaemonOptions, boot: BootSource | null): DaemonEnvironment {
  const { environment, stateDirectory, configPath } = options;
  return {
    environment,
    stateDirectory,
    ...(configPath === undefined ? {} : { configPath }),
    ...(boot === null
      ? {}
      : { boot: { targetName: boot.targetName, environment: withBootChap(environment, boot) } }),
  };
}

/**
 * Runs a daemon until `signal` aborts. `onReady` is called once everything asked for is there.
 * Throws UsageError: 28 when another daemon has the state or the socket, 33 when LUNs are missing.
 */
export async function runDaemon(
  options: DaemonOptions,
  signal: AbortSignal,
  onReady: () => void,
): Promise<void> {
  const { log, stateDirectory, socketDirectory, environment } = options;
  const wanted = parseWantedLuns(options.waitFor);
  await settleAsConfigured(options);
  const boot = options.bootFrom === undefined ? null : readBootSource(options.bootFrom);
  await StateLock.take(stateDirectory, { takeOver: options.takeOver });
  if (socketDirectory !== undefined) await mkdir(socketDirectory, { recursive: true, mode: 0o700 });
  const supervisor = await Supervisor.make({
    retained: await openRetainedStore({
      directory: retainedDirectoryOf(environment),
      onWarning: (message) => log.warn(message),
    }),
    surroundings: surroundingsOf(options, boot),
    exportPlan:
      socketDirectory === undefined
        ? { kind: 'devices' }
        : { kind: 'sockets', directory: socketDirectory },
    loginsMax: options.loginsMax,
    log,
  });
  const logs = new SessionLogs(log, (id) => {
    return supervisor.sessions.find(({ sessionId }) => sessionId === id)?.record.targetName;
  });
  supervisor.listen((event) => logs.write(event));
  if (boot !== null) wanted.push(await keepBootLogin(supervisor, boot, log));
  if (socketDirectory === undefined) {
    for (const reason of await protectFromOomKiller(nbdAddon)) log.warn(reason);
  }
  const control = new ControlServer({
    path: options.controlPath,
    call: controlMethods({
      supervisor,
      version: options.version,
      nowMs: () => threadRuntime().clock.nowMs(),
    }),
    onFailure: (error) => log.error({ err: error }, 'a control method broke'),
  });
  const systemd = new SystemdNotify(environment, log);
  let metrics: Server | null = null;
  try {
    await control.listen();
    if (options.metricsListen !== undefined) metrics = await metricsServer(options, supervisor);
    await supervisor.restore();
    await systemd.starting(options.waitTimeoutSeconds * 1000);
    await waitForLuns(supervisor, wanted, {
      timeoutMs: options.waitTimeoutSeconds * 1000,
      signal,
      onWaiting: (missing) => systemd.status(`waiting for ${missing.join(', ')}`),
    });
    if (!signal.aborted) {
      onReady();
      await systemd.ready('serving');
      await untilAborted(signal);
    }
  } finally {
    await systemd.stopping();
    await supervisor.close();
    metrics?.close();
    metrics?.closeAllConnections();
    await control.close();
  }
}

async function settleAsConfigured(options: DaemonOptions): Promise<void> {
  const { configPath, environment } = options;
  const { values } = await loadConfig({
    flags: { 'cpu-affinity': options.cpuAffinity, 'busy-poll': options.busyPoll },
    environment,
    ...(configPath === undefined ? {} : { configPath }),
  });
  await applyProcessSettings(values);
}

function metricsServer(options: DaemonOptions, supervisor: Supervisor): Promise<Server> {
  const place = options.metricsListen;
  if (place === undefined) throw new UsageError('--metrics-listen needs a place.');
  return serveMetrics(
    place,
    metricsOf(supervisor, () => threadRuntime().clock.nowMs()),
  );
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
