import type { StatisticsView } from '../supervisor/session-report.js';
import type { CliIo } from './context.js';
import { groupText } from './path-text.js';
import { humanBytes, printLine, printTable } from './print.js';
import { columnsOf, fitted } from './table-width.js';

/** Lines of the table besides its rows: an empty one, the headings, and how many are left out. */
const OTHER_LINES = 3;

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
    const seconds = last === undefined ? 0 : (view.atMs - last.atMs) / 1000;
    return view.paths.map((path) => {
      const old = last?.paths.find((one) => one.UniqueSessionId === path.UniqueSessionId);
      const rate = (field: 'BytesReceived' | 'BytesSent') =>
        old === undefined || seconds <= 0 ? 0 : Math.round((path[field] - old[field]) / seconds);
      return { path, received: rate('BytesReceived'), sent: rate('BytesSent') };
    });
  });
  if (all.length === 0 || linesMax <= OTHER_LINES) return;
  const inTrouble = all.filter(({ path }) => path.state !== 'ready');
  const shown = [...inTrouble, ...all.filter(({ path }) => path.state === 'ready')].slice(
    0,
    Math.max(1, linesMax - OTHER_LINES),
  );
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
  if (left > 0) printLine(io, `and ${left} more path${left === 1 ? '' : 's'}: iscsi-nbd paths`);
}
