import type { StatisticsView } from '../../supervisor/session-report.js';
import type { CliIo } from '../context.js';
import { lunTroubles } from '../lun-text.js';
import { drawPaths, perSecond, secondsSince } from '../path-rates.js';
import { humanBytes, printable, printLine } from '../print.js';
import { printTable } from '../print-table.js';
import { columnsOf, fitted } from '../table-width.js';
import { milliseconds, shortId, workerText } from './session-columns.js';

/** A terminal of fewer columns is spared the median. */
const NARROW_COLUMNS = 100;

/** One reading of all sessions as a table of plain text, for `--count` and for pipes. */
export function printStatistics(
  io: CliIo,
  now: readonly StatisticsView[],
  before: readonly StatisticsView[],
): void {
  const columns = columnsOf(io);
  const isNarrow = columns !== undefined && columns < NARROW_COLUMNS;
  const hasWorkers = now.some(({ worker }) => worker !== undefined);
  const headings = [
    ...['SESSION', 'STATE', 'IN/s', 'OUT/s', 'IOPS', ...(isNarrow ? [] : ['P50']), 'P99'],
    ...[
      'QD',
      'HELD',
      ...(isNarrow ? [] : ['UNFLUSHED']),
      ...(hasWorkers ? ['WORKER'] : []),
      'TARGET',
    ],
  ];
  const rows = now.map((view) => {
    const last = before.find((other) => other.UniqueSessionId === view.UniqueSessionId);
    const rate = (field: 'BytesReceived' | 'BytesSent' | 'PDUResponsesReceived') =>
      perSecond(view[field], last?.[field], secondsSince(last, view));
    const { removalInSeconds } = view;
    // A LUN that is away alone has a line of its own below.
    const isAway = removalInSeconds !== null && view.state !== 'loggedIn';
    const state = isAway ? `away, ${Math.round(removalInSeconds)} s` : view.state;
    return [
      shortId(view),
      state,
      humanBytes(rate('BytesReceived')),
      humanBytes(rate('BytesSent')),
      String(rate('PDUResponsesReceived')),
      ...(isNarrow ? [] : [milliseconds(view.p50Ms)]),
      milliseconds(view.p99Ms),
      String(view.commandsInFlight + view.commandsWaiting),
      String(view.heldRequests),
      ...(isNarrow ? [] : [humanBytes(view.luns.reduce((sum, lun) => sum + lun.retainedBytes, 0))]),
      ...(hasWorkers ? [workerText(view)] : []),
      view.TargetiSCSIName,
    ];
  });
  printTable(io, headings, fitted(headings, rows, columns));
  for (const view of now) {
    for (const trouble of lunTroubles(view.luns)) {
      printLine(io, printable(`${shortId(view)} ${trouble}`));
    }
  }
  if (rows.length === 0) printLine(io, 'no session');
  const troubles = now.reduce((sum, view) => sum + lunTroubles(view.luns).length, 0);
  const left = (io.stdout.rows ?? Infinity) - Math.max(1, rows.length) - troubles - 2;
  drawPaths(io, { now, before, linesMax: left });
}
