import { createServer, type Server } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { listenPrivately, requireFreePath } from '../io/unix-socket-path.js';
import { readPortal } from '../iscsi/login/portal.js';
import { LUN_STATES } from '../lun/lun-state.js';
import type { StatisticsView } from '../supervisor/session-report.js';
import type { WorkerView } from '../workers/worker-pool.js';
import { pathMetrics } from './path-metrics.js';
import type { SessionHost } from './session-host.js';
import { workerMetrics } from './worker-metrics.js';

type Row = {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  readonly value: (view: StatisticsView) => number;
};

/** Slow clients, of which 16 would be all there may be, are soon gone. */
const TIMES = {
  requestTimeout: 10_000,
  headersTimeout: 5000,
  connectionsCheckingInterval: 1000,
} as const;

/** Base units, as Prometheus wants them: seconds and bytes. */
const ROWS: readonly Row[] = [
  counter('sent_bytes', 'Bytes sent to the target', (view) => view.BytesSent),
  counter('received_bytes', 'Bytes received from the target', (view) => view.BytesReceived),
  counter('commands', 'SCSI commands sent', (view) => view.PDUCommandsSent),
  counter('responses', 'SCSI commands completed', (view) => view.PDUResponsesReceived),
  counter('logins', 'Logins that succeeded', (view) => view.LoginAcceptRsps),
  counter('login_failures', 'Login attempts that failed', (view) => view.LoginFailures),
  counter(
    'digest_errors',
    'Connections that ended with a digest error',
    (view) => view.DigestErrors,
  ),
  counter(
    'format_errors',
    'Connections that ended because the target violated RFC 7143',
    (view) => view.FormatErrors,
  ),
  counter(
    'connection_timeouts',
    'Connections that ended because the target did not respond',
    (view) => view.ConnectionTimeoutErrors,
  ),
  gauge('up', '1 while the session is logged in', (view) => (view.state === 'loggedIn' ? 1 : 0)),
  gauge(
    'commands_in_flight',
    'SCSI commands that the target has not completed',
    (view) => view.commandsInFlight,
  ),
  gauge('held_requests', 'Requests that are held', (view) => view.heldRequests),
  gauge('held_bytes', 'Bytes of the held requests', (view) => view.heldBytes),
  gauge(
    'latency_p50_seconds',
    'Median latency of the last 10 to 20 seconds',
    (view) => view.p50Ms / 1000,
  ),
  gauge(
    'latency_p99_seconds',
    '99th percentile of the latency of the last 10 to 20 seconds',
    (view) => view.p99Ms / 1000,
  ),
];

/** The text of all metrics, in Prometheus' exposition format. */
export function metricsOf(
  host: Pick<SessionHost, 'statistics' | 'workers'>,
): () => Promise<string> {
  const { registry, set, setWorkers } = metricsRegistry();
  return async () => {
    set(await host.statistics());
    setWorkers(await host.workers());
    return registry.metrics();
  };
}

/** Every metric, and the function that takes over a reading. */
export function metricsRegistry(): {
  readonly registry: Registry;
  readonly set: (views: readonly StatisticsView[]) => void;
  readonly setWorkers: (views: readonly WorkerView[]) => void;
} {
  const registry = new Registry();
  const rows = ROWS.map((row) => {
    const settings = {
      name: `iscsi_nbd_session_${row.name}${row.kind === 'counter' ? '_total' : ''}`,
      help: row.help,
      labelNames: ['session', 'target'] as const,
      registers: [registry],
    };
    const metric = row.kind === 'counter' ? new Counter(settings) : new Gauge(settings);
    return { row, metric };
  });
  const sessions = new Gauge({
    name: 'iscsi_nbd_sessions',
    help: 'Sessions, whatever their state',
    registers: [registry],
  });
  const setLuns = lunMetrics(registry);
  const setPaths = pathMetrics(registry);
  const set = (views: readonly StatisticsView[]) => {
    sessions.set(views.length);
    for (const { row, metric } of rows) {
      metric.reset();
      for (const view of views) {
        const labels = { session: view.UniqueSessionId, target: view.TargetiSCSIName };
        metric.inc(labels, row.value(view));
      }
    }
    setLuns(views);
    setPaths(views);
  };
  return { registry, set, setWorkers: workerMetrics(registry) };
}

/** What each LUN is doing. The returned function takes over a reading. */
function lunMetrics(registry: Registry): (views: readonly StatisticsView[]) => void {
  const labelNames = ['session', 'target', 'lun'] as const;
  const state = new Gauge({
    name: 'iscsi_nbd_lun_state',
    help: '1 for the state that the LUN is in, 0 for the others',
    labelNames: [...labelNames, 'state'] as const,
    registers: [registry],
  });
  const removal = new Gauge({
    name: 'iscsi_nbd_lun_removal_seconds',
    help: 'Time until held requests of the LUN fail and it is removed; absent if that is not due',
    labelNames,
    registers: [registry],
  });
  const retained = new Gauge({
    name: 'iscsi_nbd_lun_retained_bytes',
    help: 'Bytes of acknowledged writes that no flush covers, retained to be written again',
    labelNames,
    registers: [registry],
  });
  const replays = new Gauge({
    name: 'iscsi_nbd_lun_replays',
    help: 'Number of times that retained writes were written again',
    labelNames,
    registers: [registry],
  });
  return (views) => {
    for (const gauge of [state, removal, retained, replays]) gauge.reset();
    for (const view of views) {
      for (const status of view.luns) {
        const { lun, lunState, removalInSeconds } = status;
        const { UniqueSessionId: session, TargetiSCSIName: target } = view;
        const labels = { session, target, lun: String(lun) };
        for (const one of LUN_STATES)
          state.set({ ...labels, state: one }, one === lunState ? 1 : 0);
        if (removalInSeconds !== null) removal.set(labels, removalInSeconds);
        retained.set(labels, status.retainedBytes);
        replays.set(labels, status.replays);
      }
    }
  };
}

/**
 * Serves `text` at /metrics, on `host:port` of the loopback interface or a unix socket's path.
 * Throws UsageError for another place.
 */
export async function serveMetrics(place: string, text: () => Promise<string>): Promise<Server> {
  const where = listenPlace(place);
  if ('path' in where) await requireFreePath('--metrics-listen', place, { server: 'server' });
  const server = createServer(TIMES, (request, response) => {
    if ('host' in where && !isOwnName(request.headers.host)) {
      response.writeHead(403).end('the metrics are for names of this host only\n');
      return;
    }
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404).end('see /metrics\n');
      return;
    }
    text().then(
      (body) =>
        response.writeHead(200, { 'content-type': Registry.PROMETHEUS_CONTENT_TYPE }).end(body),
      () => response.writeHead(500).end(),
    );
  });
  server.maxConnections = 16;
  await listenPrivately(server, where).catch((cause: NodeJS.ErrnoException) => {
    const exitCode = cause.code === 'EADDRINUSE' ? EXIT_CODES.busy.code : 7;
    throw new UsageError(`--metrics-listen ${place}: ${cause.message}.`, { cause, exitCode });
  });
  return server;
}

/** A page of another host that has our address by its own name server gets nothing. */
function isOwnName(host = ''): boolean {
  return /^(?:127\.[\d.]+|\[::1\]|localhost)(?::\d+)?$/i.test(host);
}

function listenPlace(place: string): { path: string } | { host: string; port: number } {
  if (place.startsWith('/')) return { path: place };
  const address = readPortal(place);
  if ('fault' in address) throw new UsageError(`--metrics-listen ${place}: ${address.fault}.`);
  const isLoopback = /^(?:127\.[\d.]+|::1|localhost)$/.test(address.host);
  if (isLoopback) return { host: address.host, port: address.port };
  throw new UsageError(
    `--metrics-listen ${place}: only the loopback interface or a socket's path; other hosts ` +
      'read the metrics through a proxy that authenticates them.',
  );
}

function counter(name: string, help: string, value: Row['value']): Row {
  return { name, help, kind: 'counter', value };
}

function gauge(name: string, help: string, value: Row['value']): Row {
  return { name, help, kind: 'gauge', value };
}
