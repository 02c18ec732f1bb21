import { mkdir } from 'node:fs/promises';
import type { Server } from 'node:http';
import { UsageError } from '../base/errors.js';
import type { BootSource } from '../boot/boot-source.js';
import { type BootFrom, readBootSource } from '../boot/read-boot-source.js';
import { loadConfig } from '../config/config.js';
import type { ProcessSettings } from '../config/contract.js';
import type { Logger } from '../config/log.js';
import { ControlServer } from '../control/control-server.js';
import { protectFromOomKiller } from '../io/oom-protection.js';
import { nbdAddon } from '../lun/device-exporter.js';
import { applyProcessSettings } from '../lun/process-settings.js';
import { retainedDirectoryOf } from '../lun/retained-store.js';
import type { DaemonEnvironment } from '../supervisor/resolved-login.js';
import { workerCount } from '../workers/worker-count.js';
import type { WorkerPoolOptions } from '../workers/worker-pool.js';
import { keepBootLogin, withBootChap } from './boot-login.js';
import { SessionLogs } from './event-log.js';
import { metricsOf, serveMetrics } from './metrics.js';
import { openSessionHost, type SessionHost } from './session-host.js';
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
  readonly workers?: string;
  /** The program, which workers run as well. */
  readonly entry: string;
  /** `<target>/<lun>`; the daemon is ready only when all of them are usable. */
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
 * Runs a daemon until `signal` aborts. `onReady` is called once all requested LUNs are usable.
 * Throws UsageError: 28 when another daemon has the state or the socket, 33 when LUNs are missing.
 */
export async function runDaemon(
  options: DaemonOptions,
  signal: AbortSignal,
  onReady: () => void,
): Promise<void> {
  const { log, stateDirectory, socketDirectory, environment } = options;
  const wanted = parseWantedLuns(options.waitFor);
  const settings = await settleAsConfigured(options);
  const boot = options.bootFrom === undefined ? null : readBootSource(options.bootFrom);
  await StateLock.take(stateDirectory, { takeOver: options.takeOver });
  if (socketDirectory !== undefined) await mkdir(socketDirectory, { recursive: true, mode: 0o700 });
  // Threads that are started later have what it sets.
  if (socketDirectory === undefined) {
    for (const reason of await protectFromOomKiller(nbdAddon)) log.warn(reason);
  }
  const host = await openSessionHost(hostOptions(options, { settings, boot }));
  const logs = new SessionLogs(log, (id) => host.targetOf(id));
  host.listen((event) => logs.write(event));
  if (boot !== null) wanted.push(await keepBootLogin(host, boot, log));
  const control = new ControlServer({
    path: options.controlPath,
    call: host.call,
    onFailure: (error) => log.error({ err: error }, 'a control method broke'),
  });
  const systemd = new SystemdNotify(environment, log);
  let metrics: Server | null = null;
  try {
    await control.listen();
    if (options.metricsListen !== undefined) metrics = await metricsServer(options, host);
    await host.restore();
    await systemd.starting(options.waitTimeoutSeconds * 1000);
    await waitForLuns(host, wanted, {
      timeoutMs: options.waitTimeoutSeconds * 1000,
      signal,
      onWaiting: (missing) => systemd.status(`waiting for ${missing.join(', ')}`),
    });
    if (!signal.aborted) {
      onReady();
      await systemd.ready('serving', () => host.responded());
      await untilAborted(signal);
    }
  } finally {
    await systemd.stopping();
    await host.close();
    metrics?.close();
    metrics?.closeAllConnections();
    await control.close();
  }
}

function hostOptions(
  options: DaemonOptions,
  found: { readonly settings: ProcessSettings; readonly boot: BootSource | null },
): WorkerPoolOptions {
  const { socketDirectory, loginsMax, version, log, entry, environment } = options;
  const { cpuAffinity, busyPollMicroseconds = 0 } = found.settings;
  const count = workerCount(found.settings);
  return {
    count,
    entry,
    log,
    version,
    surroundings: surroundingsOf(options, found.boot),
    exportPlan:
      socketDirectory === undefined
        ? { kind: 'devices' }
        : { kind: 'sockets', directory: socketDirectory },
    // Each worker has its part of those that are under way at a time.
    loginsMax: Math.ceil(loginsMax / Math.max(1, count)),
    retainedDirectory: retainedDirectoryOf(environment),
    busyPollMicroseconds,
    ...(cpuAffinity === undefined ? {} : { cpuAffinity }),
  };
}

/** The unit of the service may refuse affinity: then the disks are served on all processors. */
async function settleAsConfigured(options: DaemonOptions): Promise<ProcessSettings> {
  const { configPath, environment, log } = options;
  const { values } = await loadConfig({
    flags: {
      'cpu-affinity': options.cpuAffinity,
      'busy-poll': options.busyPoll,
      workers: options.workers,
    },
    environment,
    ...(configPath === undefined ? {} : { configPath }),
  });
  try {
    await applyProcessSettings(values);
  } catch (error) {
    if (!(error instanceof UsageError) || error.code !== 'ERR_CPU_AFFINITY_REFUSED') throw error;
    log.warn(`${error.message} The daemon runs on all processors.`);
    const { cpuAffinity: _refused, ...others } = values;
    return others;
  }
  return values;
}

function metricsServer(options: DaemonOptions, host: SessionHost): Promise<Server> {
  const place = options.metricsListen;
  if (place === undefined) throw new UsageError('--metrics-listen needs a place.');
  return serveMetrics(place, metricsOf(host));
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
