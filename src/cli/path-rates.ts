import { isPathUsable, type PathView } from '../supervisor/path-report.js';
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

/** By how much a counter grew; 0 without a reading before, and if another thread began it anew. */
export function perSecond(now: number, before: number | undefined, seconds: number): number {
  if (before === undefined || seconds <= 0) return 0;
  return Math.max(0, Math.round((now - before) / seconds));
}

/** A path and the bytes a second over its session. */
export type PathRates = {
  readonly path: PathView;
  readonly received: number;
  readonly sent: number;
};

/** The rates of each path of a session since the reading before. */
export function pathRates(now: StatisticsView, last: StatisticsView | undefined): PathRates[] {
  const seconds = secondsSince(last, now);
  return now.paths.map((path) => {
    const old = last?.paths.find(
      ({ UniqueSessionId, lun }) => UniqueSessionId === path.UniqueSessionId && lun === path.lun,
    );
    const rate = (field: 'BytesReceived' | 'BytesSent') =>
      perSecond(path[field], old?.[field], seconds);
    return { path, received: rate('BytesReceived'), sent: rate('BytesSent') };
  });
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
  const all = now.flatMap((view) =>
    pathRates(
      view,
      before.find((other) => other.UniqueSessionId === view.UniqueSessionId),
    ),
  );
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
