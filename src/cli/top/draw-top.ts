import { isPathUsable } from '../../supervisor/path-report.js';
import type { LunStatus } from '../../supervisor/session-report.js';
import { retainedText } from '../lun-text.js';
import type { PathRates } from '../path-rates.js';
import { counted, groupText } from '../path-text.js';
import { humanBytes } from '../print.js';
import {
  MARK_COLUMNS,
  milliseconds,
  sessionTable,
  shortId,
  stateStyle,
} from './session-columns.js';
import { barOf, type Line, painted, type Segment, sparkline } from './styled-line.js';
import { KEY_HELP } from './top-keys.js';
import { type SessionRow, selectedId, sortedRows, type TopState } from './top-state.js';

export type Screen = {
  readonly columns: number;
  readonly rows: number;
  readonly hasColor: boolean;
};

const INDENT = ' '.repeat(MARK_COLUMNS);
/** Troubled LUNs of a session that is folded. */
const TROUBLES_MAX = 4;
const BAR_COLUMNS = 20;
/** Below this share of the removal latency the countdown is red. */
const URGENT_SHARE = 1 / 3;
const SPARK_COLUMNS_MAX = 60;
/** Columns of a history line besides its bars: its indent, names and the greatest values. */
const HISTORY_TEXT_COLUMNS = 36;

/** The lines of a screen: a summary, the sessions, and the keys in the last line. */
export function drawTop(state: TopState, screen: Screen): string[] {
  const rows = sortedRows(state);
  const bodyLines = Math.max(1, screen.rows - 3);
  const { headings, lines } = sessionTable(rows, screen.columns);
  const selected = selectedId(state);
  // Histories take up half of the screen; where they do not fit, only the selected session has one.
  const areHistoriesShown = rows.length * 2 <= bodyLines;
  const blocks = rows.map((row, at) => {
    const { UniqueSessionId: id } = row.view;
    const isUnfolded = state.unfolded.has(id);
    const mark: Segment = [`${id === selected ? '>' : ' '}${isUnfolded ? '▾' : '▸'} `, 'bold'];
    const block: Line[] = [[mark, ...(lines[at] ?? [])]];
    if (areHistoriesShown || id === selected) block.push(historyLine(row, screen.columns));
    return [
      ...block,
      ...outageLines(row),
      ...lunLines(row, isUnfolded),
      ...pathLines(row, isUnfolded),
    ];
  });
  const before = blocks.slice(
    0,
    rows.findIndex(({ view }) => view.UniqueSessionId === selected),
  );
  const body = blocks.flat();
  if (rows.length === 0) body.push([['no session: `iscsi-nbd login` makes one']]);
  // A third of the screen is above the selected session.
  const wanted = before.flat().length - Math.floor(bodyLines / 3) + state.scrolledLines;
  const first = Math.min(Math.max(wanted, 0), Math.max(0, body.length - bodyLines));
  const shown = body.slice(first, first + bodyLines);
  const empty = Array<Line>(Math.max(0, bodyLines - shown.length)).fill([]);
  const left = body.length - first - shown.length;
  return [summaryLine(rows), headings, ...shown, ...empty, keyLine(state, left)].map((line) =>
    painted(line, screen),
  );
}

function summaryLine(rows: readonly SessionRow[]): Line {
  const sum = (of: (row: SessionRow) => number) => rows.reduce((total, row) => total + of(row), 0);
  const away = rows.filter(({ view }) => view.state !== 'loggedIn').length;
  const troubles = sum(({ view }) => view.luns.filter((lun) => lun.lunState !== 'serving').length);
  const held = sum(({ view }) => view.heldRequests);
  return [
    ['iscsi-nbd top  ', 'bold'],
    [`${counted(rows.length, 'session')}  `],
    ...(away === 0 ? [] : [[`${away} away  `, 'yellow'] as const]),
    ...(troubles === 0 ? [] : [[`${counted(troubles, 'LUN')} not serving  `, 'yellow'] as const]),
    ...(held === 0 ? [] : [[`${held} held  `, 'yellow'] as const]),
    [`in ${humanBytes(sum(({ received }) => received))}/s  `],
    [`out ${humanBytes(sum(({ sent }) => sent))}/s`],
  ];
}

function keyLine({ sort, isReversed }: TopState, linesLeft: number): Line {
  const keys = KEY_HELP.flatMap(([key, action]): Line => {
    const which = action === 'sort' ? `sort: ${sort}${isReversed ? ', reversed' : ''}` : action;
    return [
      [key, 'bold'],
      [` ${which}  `, 'gray'],
    ];
  });
  return linesLeft === 0 ? keys : [[`${counted(linesLeft, 'more line')}  `, 'yellow'], ...keys];
}

/** Throughput and 99th percentile of latency over time, each with its greatest value. */
function historyLine({ history }: SessionRow, columns: number): Line {
  const free = Math.floor((columns - HISTORY_TEXT_COLUMNS) / 2);
  const width = Math.min(Math.max(free, 1), SPARK_COLUMNS_MAX);
  const shown = history.slice(-width);
  const value = (of: 'bytesPerSecond' | 'p99Ms') =>
    shown.map((sample) => (sample.isAway ? null : sample[of]));
  const most = (of: 'bytesPerSecond' | 'p99Ms') =>
    shown.reduce((top, sample) => (sample.isAway ? top : Math.max(top, sample[of])), 0);
  return [
    [`${INDENT}B/s `, 'gray'],
    [sparkline(value('bytesPerSecond'), width), 'cyan'],
    [` ${humanBytes(most('bytesPerSecond')).padEnd(11)}`],
    ['P99 ', 'gray'],
    [sparkline(value('p99Ms'), width), 'magenta'],
    [` ${milliseconds(most('p99Ms'))}`],
  ];
}

/** Why the session is away, and when it is tried again. */
function outageLines({ view, outage }: SessionRow): Line[] {
  if (view.state === 'loggedIn' || outage === null || outage.lastError === null) return [];
  const { lastError, nextAttemptInSeconds: next } = outage;
  const attempt = next === null ? '' : `next attempt in ${Math.ceil(next)} s: `;
  return [[[`${INDENT}${attempt}`], [lastError, 'red']]];
}

/** LUNs that do not serve, with the countdown as a bar; all LUNs of an unfolded session. */
function lunLines(row: SessionRow, isUnfolded: boolean): Line[] {
  const { luns } = row.view;
  if (isUnfolded) return luns.map((lun) => lunLine(lun, row));
  const troubled = luns.filter(({ lunState }) => lunState !== 'serving');
  const lines = troubled.slice(0, TROUBLES_MAX).map((lun) => lunLine(lun, row));
  const left = troubled.length - lines.length;
  return left <= 0 ? lines : [...lines, [[`${INDENT}and ${counted(left, 'more LUN')}: Enter`]]];
}

function lunLine(lun: LunStatus, { view, outage }: SessionRow): Line {
  const { lunState, removalInSeconds, lastError } = lun;
  const width = Math.max(...view.luns.map((one) => lunName(one).length));
  const name = INDENT + lunName(lun).padEnd(width);
  const line: Segment[] = [[`${name}  `], [lunState.padEnd(9), stateStyle(lunState)]];
  if (removalInSeconds !== null) {
    const latency = outage?.removalLatencySeconds ?? removalInSeconds;
    const share = latency === 0 ? 0 : removalInSeconds / latency;
    line.push([barOf(share, BAR_COLUMNS), share < URGENT_SHARE ? 'red' : 'yellow']);
    line.push([` removed in ${Math.round(removalInSeconds)} s`]);
  }
  const retained = retainedText(lun).replace(/^, /, '');
  if (retained !== '') line.push([`  ${retained}`]);
  // The session's own error is shown above.
  const isSessions = view.state !== 'loggedIn' && removalInSeconds !== null;
  if (lastError !== null && !isSessions) line.push([`  ${lastError}`, 'red']);
  return line;
}

function lunName({ lun, device }: LunStatus): string {
  return device === null ? `LUN ${lun}` : `LUN ${lun}  ${device}`;
}

/** Paths that cannot be used; all paths of an unfolded session. */
function pathLines({ paths }: SessionRow, isUnfolded: boolean): Line[] {
  const shown = isUnfolded ? paths : paths.filter(({ path }) => !isPathUsable(path));
  const lines = shown.slice(0, isUnfolded ? Infinity : TROUBLES_MAX).map(pathLine);
  const left = shown.length - lines.length;
  return left <= 0 ? lines : [...lines, [[`${INDENT}and ${counted(left, 'more path')}: Enter`]]];
}

function pathLine({ path, received, sent }: PathRates): Line {
  const why = isPathUsable(path) ? '' : `  ${path.reason}`;
  const failures = path.failures === 0 ? '' : `, ${counted(path.failures, 'failure')}`;
  return [
    [`${INDENT}path ${shortId(path)}  LUN ${path.lun}  ${path.portal.padEnd(21)} `],
    [path.pathState.padEnd(12), stateStyle(path.pathState)],
    [` in ${humanBytes(received)}/s  out ${humanBytes(sent)}/s`],
    [`  ${counted(path.commandsInFlight, 'command')}${failures}, ${groupText(path)}`],
    [why, 'red'],
  ];
}
