import { describe, expect, it } from 'vitest';
import { KEY_HELP, keyPressed } from '../../src/cli/top/top-keys.js';
import {
  INITIAL_TOP,
  isInOutage,
  sampleReceived,
  selectedId,
  sortedRows,
  type TopState,
} from '../../src/cli/top/top-state.js';
import type { StatisticsView } from '../../src/supervisor/session-report.js';
import { SAMPLE_PATH } from './sample-path.js';
import { awayStatistics, lun, sessionView, statistics } from './top-sample.js';

const readBy = (...readings: StatisticsView[][]): TopState =>
  readings.reduce((state, reading) => sampleReceived(state, reading, []), INITIAL_TOP);
const press = (state: TopState, ...keys: string[]) => keys.reduce(keyPressed, state);
const order = (state: TopState) =>
  sortedRows(state).map(({ view }) => Number(view.UniqueSessionId));

describe('a reading in top', () => {
  it('rates are the growth of the counters in a second', () => {
    const before = statistics(1, { atMs: 1000, BytesReceived: 5000, PDUResponsesReceived: 10 });
    const now = { ...before, atMs: 3000, BytesReceived: 9000, PDUResponsesReceived: 30 };
    expect(readBy([before], [now]).rows[0]).toMatchObject({
      ...{ received: 2000, sent: 0, responses: 10 },
    });
  });

  it('the first reading has no rate and no place in the history', () => {
    const state = readBy([statistics(1, { BytesReceived: 5000 })]);
    expect(state.rows[0]).toMatchObject({ received: 0, history: [] });
  });

  it('counters that begin again after an upgrade give no negative rate', () => {
    const before = statistics(1, { BytesSent: 5000 });
    const state = readBy([before], [statistics(1, { BytesSent: 10, atMs: 2000 })]);
    expect(state.rows[0]?.sent).toBe(0);
  });

  it('the history has the latest 240 readings', () => {
    const readings = Array.from({ length: 300 }, (_, at) => [
      statistics(1, { atMs: at * 1000, BytesSent: at * at }),
    ]);
    const history = readBy(...readings).rows[0]?.history ?? [];
    expect(history).toHaveLength(240);
    expect(history.at(-1)).toEqual({
      bytesPerSecond: 299 ** 2 - 298 ** 2,
      p99Ms: 2,
      isAway: false,
    });
  });

  it('each path has rates of its own', () => {
    const path = (BytesSent: number) => ({ ...SAMPLE_PATH, BytesSent });
    const before = statistics(1, { paths: [path(100)] });
    const now = statistics(1, { atMs: 2000, paths: [path(300)] });
    expect(readBy([before], [now]).rows[0]?.paths[0]).toMatchObject({ sent: 200 });
  });

  it('an outage has the removal latency of the session, or none if disks are never removed', () => {
    const view = awayStatistics(1, 30);
    const outageWith = (latency: number | 'never') =>
      sampleReceived(INITIAL_TOP, [view], [sessionView(1, latency)]).rows[0]?.outage;
    expect(outageWith(60)?.removalLatencySeconds).toBe(60);
    expect(outageWith('never')?.removalLatencySeconds).toBe(null);
  });

  it('a session is in an outage if it is not logged in, or one of its LUNs is to be removed', () => {
    expect(isInOutage(statistics(1))).toBe(false);
    expect(isInOutage(statistics(1, { state: 'reconnecting' }))).toBe(true);
    expect(isInOutage(statistics(1, { removalInSeconds: 3 }))).toBe(true);
  });

  it('a session that is gone is neither selected nor unfolded', () => {
    const both = press(readBy([statistics(1), statistics(2)]), 'down', 'return');
    expect(selectedId(both)).toBe(statistics(2).UniqueSessionId);
    const one = sampleReceived(both, [statistics(1)], []);
    expect(selectedId(one)).toBe(statistics(1).UniqueSessionId);
    expect(one.unfolded.size).toBe(0);
  });
});

describe('the keys of top', () => {
  const three = readBy([statistics(1), statistics(2), statistics(3)]);
  const selected = (state: TopState) => Number(selectedId(state));

  it('the arrows select a session and stop at both ends', () => {
    expect(selected(three)).toBe(1);
    expect(selected(press(three, 'down'))).toBe(2);
    expect(selected(press(three, 'j', 'j', 'down'))).toBe(3);
    expect(selected(press(three, 'end', 'up', 'k', 'up'))).toBe(1);
  });

  it('Enter unfolds the selected session and folds it again', () => {
    const unfolded = press(three, 'down', 'return');
    expect([...unfolded.unfolded]).toEqual([statistics(2).UniqueSessionId]);
    expect(press(unfolded, 'return').unfolded.size).toBe(0);
  });

  it('a unfolds all sessions, and folds them if all are unfolded', () => {
    expect(press(three, 'return', 'a').unfolded.size).toBe(3);
    expect(press(three, 'a', 'a').unfolded.size).toBe(0);
  });

  it('q and Ctrl-C end it; a key without a meaning changes nothing', () => {
    expect(press(three, 'q').hasEnded).toBe(true);
    expect(press(three, 'ctrl-c').hasEnded).toBe(true);
    expect(press(three, 'x', 'toString')).toBe(three);
  });

  it('no key fails without sessions', () => {
    for (const key of ['up', 'down', 'home', 'end', 'return', 'a', 's', 'r', 'pagedown']) {
      expect(selectedId(press(INITIAL_TOP, key))).toBe(null);
    }
  });

  it('the help line has no more than one line of a wide terminal', () => {
    expect(KEY_HELP.map(([key, action]) => `${key} ${action}  `).join('').length).toBeLessThan(100);
  });
});

describe('the order of sessions in top', () => {
  const removed = statistics(4, { luns: [lun(1, { lunState: 'removed' })] });
  const state = readBy([
    statistics(1, { p99Ms: 9, TargetiSCSIName: 'iqn.b' }),
    awayStatistics(2, 50, { p99Ms: 1, heldRequests: 5, TargetiSCSIName: 'iqn.c' }),
    awayStatistics(3, 20, { p99Ms: 2, commandsInFlight: 2, TargetiSCSIName: 'iqn.a' }),
    { ...removed, p99Ms: 3, TargetiSCSIName: 'iqn.d' },
  ]);

  it.each([
    [0, 'login', [1, 2, 3, 4]],
    [1, 'state', [4, 3, 2, 1]],
    [3, 'latency', [1, 4, 3, 2]],
    [4, 'queue', [2, 3, 1, 4]],
    [5, 'target', [3, 1, 2, 4]],
    [6, 'login', [1, 2, 3, 4]],
  ])('%i times s sorts by %s', (times, sort, expected) => {
    const sorted = press(state, ...Array<string>(times).fill('s'));
    expect(sorted.sort).toBe(sort);
    expect(order(sorted)).toEqual(expected);
  });

  it('throughput counts both directions, and r reverses the order', () => {
    const later = [
      statistics(1, { atMs: 2000, BytesSent: 10, BytesReceived: 10 }),
      statistics(2, { atMs: 2000, BytesSent: 15 }),
    ];
    const sorted = press(readBy([statistics(1), statistics(2)], later), 's', 's');
    expect(sorted.sort).toBe('throughput');
    expect(order(sorted)).toEqual([1, 2]);
    expect(order(press(sorted, 'r'))).toEqual([2, 1]);
  });
});
