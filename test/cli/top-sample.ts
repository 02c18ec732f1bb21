import type { SessionView, StatisticsView } from '../../src/supervisor/session-report.js';

type Lun = StatisticsView['luns'][number];

/** The numbers of a session that is well, for `top`; the id is `number` in 16 digits. */
export function statistics(number: number, more: Partial<StatisticsView> = {}): StatisticsView {
  const sample: Partial<StatisticsView> = {
    UniqueSessionId: String(number).padStart(16, '0'),
    TargetiSCSIName: `iqn.2001-04.com.example:disk${number}`,
    BytesSent: 0,
    BytesReceived: 0,
    PDUResponsesReceived: 0,
    p50Ms: 0.25,
    p99Ms: 2,
    commandsInFlight: 0,
    commandsWaiting: 0,
    heldRequests: 0,
    heldBytes: 0,
    state: 'loggedIn',
    removalInSeconds: null,
    luns: [lun(1)],
    paths: [],
    atMs: 1000,
    ...more,
  };
  return sample as StatisticsView;
}

export function lun(number: number, more: Partial<Lun> = {}): Lun {
  return {
    lun: number,
    device: `/dev/nbd${number}`,
    lunState: 'serving',
    removalInSeconds: null,
    lastError: null,
    retainedBytes: 0,
    retainedAgeSeconds: 0,
    replays: 0,
    ...more,
  };
}

/** A session in an outage, of which `seconds` of the 60 s of its removal latency are left. */
export function awayStatistics(
  number: number,
  seconds: number,
  more: Partial<StatisticsView> = {},
): StatisticsView {
  const away = { lunState: 'away', removalInSeconds: seconds, lastError: 'no route' } as const;
  return statistics(number, {
    state: 'reconnecting',
    removalInSeconds: seconds,
    luns: [lun(1, away)],
    ...more,
  });
}

/** The part of a session's view that `top` uses. */
export function sessionView(
  number: number,
  removalLatencySeconds: number | 'never' = 60,
): SessionView {
  const view: Partial<SessionView> = {
    UniqueSessionId: String(number).padStart(16, '0'),
    lastError: 'no connection to 192.0.2.1:3260 (ECONNREFUSED)',
    nextAttemptInSeconds: 2.4,
    options: { removalLatencySeconds },
  };
  return view as SessionView;
}
