import { isPathUsable } from '../supervisor/path-report.js';
import type { StatisticsView } from '../supervisor/session-report.js';
import type { CliIo } from './context.js';
import { counted, groupText } from './path-text.js';
import { humanBytes, printLine } from './print.js';
import { printTable } from './print-table.js';
import { columnsOf, fitted } from './table-width.js';

/** Lines of the table besides its rows: an empty one, the headings, and how many are left out. */
const OTHER_LINES = 3;

/** Between two looks at a session; 0 without a first one. */
export function secondsSince(last: StatisticsView | undefined, now: StatisticsView): number {
  return last === undefined ? 0 : (now.atMs - last.atMs) / 1000;
}

/** By how much a counter grew; 0 if it was not looked at before. */
export function perSecond(now: number, before: number | undefined, seconds: number): number {
  return before === undefined || seconds <= 0 ? 0 : Math.round((now - before) / seconds);
}

/** A line for each path of disks that have several, as many as fit: those in trouble first. */
export function drawPaths(
  io: CliIo,
  {
    now,
    before,
    linesMax,
  }: {
    readonly now: readonly StatisticsView[];
    readonly before: readonly StatisticsView[];
    readonly linesMax: number;
  },
): void {
  const all = now.flatMap((view) => {
    const last = before.find((other) => other.UniqueSessionId === view.UniqueSessionId);
    return view.paths.map((path) => {
      const old = last?.paths.find((one) => one.UniqueSessionId === path.UniqueSessionId);
      const rate = (field: 'BytesReceived' | 'BytesSent') =>
        perSecond(path[field], old?.[field], secondsSince(last, view));
      return { path, received: rate('BytesReceived'), sent: rate('BytesSent') };
    });
  });
  if (all.length === 0 || linesMax <= OTHER_LINES) return;
  const troubledFirst = all.toSorted(
    (one, other) => Number(isPathUsable(one.path)) - Number(isPathUsable(other.path)),
  );
  const shown = troubledFirst.slice(0, Math.max(1, linesMax - OTHER_LINES));
  const headings = [
    ...['PATH', 'LUN', 'STATE', 'IN/s', 'OUT/s', 'QD', 'FAILURES', 'GROUP', 'PORTAL'],
  ];
  const rows = shown.map(({ path, received, sent }) => [
    path.UniqueSessionId.slice(0, 8),
    String(path.lun),
    path.pathState,
    humanBytes(received),
    humanBytes(sent),
    String(path.commandsInFlight),
    String(path.failures),
    groupText(path),
    path.portal,
  ]);
  printLine(io, '');
  printTable(io, headings, fitted(headings, rows, columnsOf(io)));
  const left = all.length - shown.length;
  if (left > 0) printLine(io, `and ${counted(left, 'more path')}: iscsi-nbd paths`);
}
