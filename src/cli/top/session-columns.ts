import type { StatisticsView } from '../../supervisor/session-report.js';
import { humanBytes } from '../print.js';
import type { Line, Style } from './styled-line.js';
import type { SessionRow } from './top-state.js';

/** The columns of the marks before each session. */
export const MARK_COLUMNS = 3;
const GAP = 2;
/** Columns that the last column, the target's name, has at least. */
const NAME_COLUMNS_MIN = 16;

/** What a state looks like: of sessions, LUNs and paths. */
const STATE_STYLES: Readonly<Record<string, Style>> = {
  ...{ loggedIn: 'green', serving: 'green', optimized: 'green', nonOptimized: 'green' },
  ...{ ready: 'green', closed: 'gray', loggingOut: 'gray', removed: 'red', down: 'red' },
};

/** States that pass, such as `reconnecting`, are yellow. */
export function stateStyle(state: string): Style {
  return STATE_STYLES[state] ?? 'yellow';
}

type Column = {
  readonly heading: string;
  /** Columns with the highest number are omitted first if the terminal is narrow. */
  readonly rank: number;
  readonly isNumber: boolean;
  readonly text: (row: SessionRow) => string;
  readonly style?: (row: SessionRow) => Style;
};

const COLUMNS: readonly Column[] = [
  { heading: 'SESSION', rank: 5, isNumber: false, text: ({ view }) => shortId(view) },
  {
    ...{ heading: 'STATE', rank: 0, isNumber: false },
    text: ({ view }) => view.state,
    style: ({ view }) => stateStyle(view.state),
  },
  { heading: 'IN/s', rank: 1, isNumber: true, text: ({ received }) => humanBytes(received) },
  { heading: 'OUT/s', rank: 1, isNumber: true, text: ({ sent }) => humanBytes(sent) },
  { heading: 'IOPS', rank: 6, isNumber: true, text: ({ responses }) => String(responses) },
  { heading: 'P50', rank: 7, isNumber: true, text: ({ view }) => milliseconds(view.p50Ms) },
  { heading: 'P99', rank: 2, isNumber: true, text: ({ view }) => milliseconds(view.p99Ms) },
  {
    ...{ heading: 'QD', rank: 4, isNumber: true },
    text: ({ view }) => String(view.commandsInFlight + view.commandsWaiting),
  },
  {
    ...{ heading: 'HELD', rank: 3, isNumber: true },
    text: ({ view }) => String(view.heldRequests),
    style: ({ view }) => (view.heldRequests > 0 ? 'yellow' : 'gray'),
  },
  {
    ...{ heading: 'UNFLUSHED', rank: 8, isNumber: true },
    text: ({ view }) => humanBytes(view.luns.reduce((sum, lun) => sum + lun.retainedBytes, 0)),
  },
];
/** Only with workers. */
const WORKER: Column = {
  ...{ heading: 'WORKER', rank: 8, isNumber: true },
  text: ({ view }) => workerText(view),
};
const NAME: Column = {
  ...{ heading: 'TARGET', rank: 0, isNumber: false },
  text: ({ view }) => view.TargetiSCSIName,
};

/** Number and load of the worker of a session. */
export function workerText({
  worker,
  workerLoad = 0,
}: Pick<StatisticsView, 'worker' | 'workerLoad'>): string {
  return worker === undefined ? '-' : `${worker} ${Math.round(workerLoad * 100)}%`;
}

/** Below a millisecond in microseconds, from a second on in seconds. */
export function milliseconds(value: number): string {
  if (value < 1) return `${Math.round(value * 1000)} µs`;
  return value < 1000 ? `${value.toFixed(1)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function shortId({ UniqueSessionId }: { readonly UniqueSessionId: string }): string {
  return UniqueSessionId.slice(0, 8);
}

/** The headings and a line for each row, with the columns that fit. */
export function sessionTable(
  rows: readonly SessionRow[],
  columns: number,
): { readonly headings: Line; readonly lines: readonly Line[] } {
  const hasWorkers = rows.some(({ view }) => view.worker !== undefined);
  const all = hasWorkers ? [...COLUMNS, WORKER] : COLUMNS;
  const widths = new Map(all.map((column) => [column, widthOf(column, rows)]));
  const shown = fitting(widths, columns - MARK_COLUMNS);
  const used = shown.reduce((sum, column) => sum + (widths.get(column) ?? 0) + GAP, MARK_COLUMNS);
  const cell = (column: Column, text: string) => {
    const width = widths.get(column) ?? 0;
    return (column.isNumber ? text.padStart(width) : text.padEnd(width)) + ' '.repeat(GAP);
  };
  const headings: Line = [
    [' '.repeat(MARK_COLUMNS)],
    [shown.map((column) => cell(column, column.heading)).join('') + NAME.heading, 'bold'],
  ];
  const lines = rows.map((row): Line => {
    const cells = shown.map((column): Line[number] => {
      const text = cell(column, column.text(row));
      return column.style === undefined ? [text] : [text, column.style(row)];
    });
    return [...cells, [nameEnd(NAME.text(row), columns - used)]];
  });
  return { headings, lines };
}

function widthOf({ heading, text }: Column, rows: readonly SessionRow[]): number {
  return Math.max(heading.length, ...rows.map((row) => text(row).length));
}

function fitting(widths: ReadonlyMap<Column, number>, columns: number): readonly Column[] {
  let shown: readonly Column[] = [...widths.keys()];
  const total = () => shown.reduce((sum, column) => sum + (widths.get(column) ?? 0) + GAP, 0);
  while (total() + NAME_COLUMNS_MIN > columns) {
    const rank = Math.max(...shown.map((column) => column.rank));
    if (rank === 0) break;
    shown = shown.filter((column) => column.rank < rank);
  }
  return shown;
}

/** The end of a name tells more than its beginning, which all targets of one maker share. */
function nameEnd(name: string, columns: number): string {
  return name.length <= columns ? name : `…${name.slice(name.length - Math.max(0, columns - 1))}`;
}
