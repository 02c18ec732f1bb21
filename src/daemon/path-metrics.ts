import { Counter, Gauge, type Registry } from 'prom-client';
import { PATH_WORDS } from '../bridge/paths/path.js';
import { isPathUsable, type PathView } from '../supervisor/path-report.js';
import type { StatisticsView } from '../supervisor/session-report.js';

const LABELS = ['session', 'target', 'lun', 'portal', 'path'] as const;

type Row = {
  readonly name: string;
  readonly help: string;
  readonly value: (path: PathView) => number;
};

const GAUGES: readonly Row[] = [
  {
    name: 'up',
    help: '1 while commands may use the path',
    value: (path) => (isPathUsable(path) ? 1 : 0),
  },
  {
    name: 'preferred',
    help: '1 if the target prefers the port group of the path',
    value: ({ preferred }) => (preferred ? 1 : 0),
  },
  {
    name: 'commands_in_flight',
    help: 'SCSI commands in flight over the path',
    value: ({ commandsInFlight }) => commandsInFlight,
  },
];
const COUNTERS: readonly Row[] = [
  {
    name: 'failures',
    help: 'Number of times that the path was lost while commands could use it',
    value: ({ failures }) => failures,
  },
  {
    name: 'sent_bytes',
    help: 'Bytes sent over the session of the path',
    value: ({ BytesSent }) => BytesSent,
  },
  {
    name: 'received_bytes',
    help: 'Bytes received over the session of the path',
    value: ({ BytesReceived }) => BytesReceived,
  },
];

/**
 * The paths of disks that have several; `path` is the number of the session of the path. The
 * returned function takes over a reading.
 */
export function pathMetrics(registry: Registry): (views: readonly StatisticsView[]) => void {
  const settings = ({ name, help }: Row, suffix = '') => ({
    name: `iscsi_nbd_path_${name}${suffix}`,
    help,
    labelNames: LABELS,
    registers: [registry],
  });
  const rows = [
    ...GAUGES.map((row) => ({ row, metric: new Gauge(settings(row)) })),
    ...COUNTERS.map((row) => ({ row, metric: new Counter(settings(row, '_total')) })),
  ];
  const state = new Gauge({
    name: 'iscsi_nbd_path_state',
    help: '1 for the state that the path is in, 0 for the others',
    labelNames: [...LABELS, 'state'] as const,
    registers: [registry],
  });
  return (views) => {
    for (const { metric } of rows) metric.reset();
    state.reset();
    for (const { UniqueSessionId: session, TargetiSCSIName: target, paths } of views) {
      for (const path of paths) {
        const { portal, UniqueSessionId } = path;
        const labels = { session, target, lun: String(path.lun), portal, path: UniqueSessionId };
        for (const { row, metric } of rows) metric.inc(labels, row.value(path));
        for (const one of PATH_WORDS)
          state.set({ ...labels, state: one }, one === path.pathState ? 1 : 0);
      }
    }
  };
}
