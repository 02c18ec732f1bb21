import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { drawTop } from '../../src/cli/top/draw-top.js';
import { barOf, painted, sparkline } from '../../src/cli/top/styled-line.js';
import { keyPressed } from '../../src/cli/top/top-keys.js';
import { INITIAL_TOP, sampleReceived, type TopState } from '../../src/cli/top/top-state.js';
import type { StatisticsView } from '../../src/supervisor/session-report.js';
import { SAMPLE_PATH } from './sample-path.js';
import { awayStatistics, lun, sessionView, statistics } from './top-sample.js';

const PLAIN = { columns: 100, rows: 24, hasColor: false };
const RED = '\u001b[31m';
const YELLOW = '\u001b[33m';

/** Two readings, a second apart, of the same numbers. */
function shown(...views: StatisticsView[]): TopState {
  const sessions = views.map((view) => sessionView(Number(view.UniqueSessionId)));
  const first = sampleReceived(INITIAL_TOP, views, sessions);
  const later = views.map((view) => ({ ...view, atMs: view.atMs + 1000 }));
  return sampleReceived(first, later, sessions);
}

const lineOf = (lines: readonly string[], part: string) =>
  lines.find((line) => line.includes(part)) ?? '';

describe('the screen of top', () => {
  const views = [statistics(1), awayStatistics(2, 45), awayStatistics(3, 15)];

  it.each([
    [60, 14],
    [80, 24],
    [100, 30],
    [200, 60],
    [20, 5],
    [1, 1],
  ])(
    'no line of a screen of %i columns and %i rows is longer, and no more lines',
    (columns, rows) => {
      for (const hasColor of [true, false]) {
        const lines = drawTop(shown(...views), { columns, rows, hasColor });
        expect(lines).toHaveLength(Math.max(rows, 4));
        for (const line of lines) {
          expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(columns);
        }
      }
    },
  );

  it('the first line counts what is not well', () => {
    const [first] = drawTop(shown(...views, awayStatistics(4, 9, { heldRequests: 7 })), PLAIN);
    expect(first).toBe(
      'iscsi-nbd top  4 sessions  3 away  3 LUNs not serving  7 held  in 0 B/s  out 0 B/s',
    );
  });

  it('a narrow terminal has fewer columns, and always state, rates and target', () => {
    const headings = (columns: number) => {
      const [, line = ''] = drawTop(shown(...views), { ...PLAIN, columns });
      return line.trim().split(/ +/);
    };
    expect(headings(140)).toContain('UNFLUSHED');
    expect(headings(80)).toEqual(expect.arrayContaining(['SESSION', 'P99', 'QD', 'HELD']));
    expect(headings(60)).toEqual(expect.arrayContaining(['STATE', 'IN/s', 'OUT/s', 'TARGET']));
    expect(headings(60)).not.toContain('P50');
  });

  it('the countdown is a bar of the removal latency, red in its last third', () => {
    const lines = drawTop(shown(...views), { ...PLAIN, hasColor: true });
    const bar = (number: number) => `${'█'.repeat(number)}${'░'.repeat(20 - number)}`;
    expect(lineOf(lines, 'removed in 45 s')).toContain(YELLOW + bar(15));
    expect(lineOf(lines, 'removed in 15 s')).toContain(RED + bar(5));
  });

  it('a session that is away has the reason and its next attempt', () => {
    const lines = drawTop(shown(awayStatistics(1, 45)), PLAIN);
    expect(lines[4]).toBe('   next attempt in 3 s: no connection to 192.0.2.1:3260 (ECONNREFUSED)');
  });

  it('a LUN that is away alone is shown with its reason below a session that is logged in', () => {
    const away = lun(2, { lunState: 'away', removalInSeconds: 30, lastError: 'no such LUN' });
    const view = statistics(1, { removalInSeconds: 30, luns: [lun(1), away] });
    const lines = drawTop(shown(view), PLAIN);
    expect(lineOf(lines, 'LUN 2')).toMatch(
      /\/dev\/nbd2 {2}away .* removed in 30 s {2}no such LUN$/,
    );
    expect(lineOf(lines, 'LUN 1')).toBe('');
  });

  it('LUNs and paths that are well are shown when the session is unfolded', () => {
    const paths = [SAMPLE_PATH, { ...SAMPLE_PATH, state: 'down', pathState: 'down' } as const];
    const state = shown(statistics(1, { paths }));
    const folded = drawTop(state, PLAIN).join('\n');
    expect(folded.match(/path [0-9a-f]{8}/g)).toHaveLength(1);
    const unfolded = drawTop(keyPressed(state, 'return'), PLAIN).join('\n');
    expect(unfolded).toMatch(/>▾ .*\n.*\n {3}LUN 1 {2}\/dev\/nbd1 {2}serving\n/);
    expect(unfolded.match(/path [0-9a-f]{8}/g)).toHaveLength(2);
  });

  it('only the selected session has its history if not all fit', () => {
    const many = Array.from({ length: 12 }, (_, at) => statistics(at + 1));
    const histories = (rows: number) =>
      drawTop(shown(...many), { ...PLAIN, rows }).filter((line) => line.startsWith('   B/s'));
    expect(histories(40)).toHaveLength(12);
    expect(histories(20)).toHaveLength(1);
  });

  it('the selected session is on the screen, and the last line counts what is below it', () => {
    const many = Array.from({ length: 50 }, (_, at) => statistics(at + 1));
    const top = drawTop(shown(...many), PLAIN);
    expect(top.at(-1)).toMatch(/^30 more lines {2}q quit/);
    const end = drawTop(keyPressed(shown(...many), 'end'), PLAIN);
    expect(lineOf(end, 'disk50')).toMatch(/^>/);
    expect(end.at(-1)).toMatch(/^q quit/);
  });

  it('a page further shows the end of a long block', () => {
    const luns = Array.from({ length: 60 }, (_, at) => lun(at));
    let state = keyPressed(shown(statistics(1, { luns })), 'return');
    expect(lineOf(drawTop(state, PLAIN), 'LUN 59')).toBe('');
    for (let page = 0; page < 6; page += 1) state = keyPressed(state, 'pagedown');
    expect(lineOf(drawTop(state, PLAIN), 'LUN 59')).not.toBe('');
  });

  it('a screen without colours has no escape sequence, and neither has a name of a target', () => {
    const view = statistics(1, { TargetiSCSIName: 'iqn.\u001b[31mred' });
    expect(drawTop(shown(view), PLAIN).join('')).not.toContain('\u001b');
    expect(drawTop(shown(view), { ...PLAIN, hasColor: true }).join('')).not.toContain(RED);
  });

  it('a daemon without sessions is reported with the next step', () => {
    expect(drawTop(INITIAL_TOP, PLAIN)[2]).toBe('no session: `iscsi-nbd login` makes one');
  });
});

describe('the pieces of a line', () => {
  it('a sparkline is scaled to its greatest value, and an outage is a dot', () => {
    expect(sparkline([0, 5, 10, null], 6)).toBe('  ▁▅█·');
    expect(sparkline([9, 0, 0], 2)).toBe('▁▁');
    expect(sparkline([], 3)).toBe('   ');
  });

  it('a bar is empty only at zero', () => {
    expect(barOf(0, 4)).toBe('░░░░');
    expect(barOf(0.01, 4)).toBe('█░░░');
    expect(barOf(1.5, 4)).toBe('████');
  });

  it('a line that is too long ends with an ellipsis', () => {
    const line = [['abc', 'red'], ['def']] as const;
    expect(painted(line, { columns: 4, hasColor: false })).toBe('abc…');
    expect(painted(line, { columns: 3, hasColor: false })).toBe('ab…');
    expect(painted(line, { columns: 6, hasColor: true })).toBe(`${RED}abc\u001b[39mdef`);
  });
});
