import type { SessionView, StatisticsView } from '../../supervisor/session-report.js';
import { type PathRates, pathRates, perSecond, secondsSince } from '../path-rates.js';

/** Samples of a session that are kept: more than the columns of a wide terminal. */
const SAMPLES_MAX = 240;

/** One reading of a session, for its history. */
export type Sample = {
  readonly bytesPerSecond: number;
  readonly p99Ms: number;
  readonly isAway: boolean;
};

/** What is shown of one session. Rates are per second. */
export type SessionRow = {
  readonly view: StatisticsView;
  readonly received: number;
  readonly sent: number;
  readonly responses: number;
  /** The oldest sample first. */
  readonly history: readonly Sample[];
  readonly paths: readonly PathRates[];
  /** Only during an outage; null if the daemon was not asked or has no such session any more. */
  readonly outage: Outage | null;
};

export type Outage = {
  readonly lastError: string | null;
  readonly nextAttemptInSeconds: number | null;
  /** Null if disks are never removed. */
  readonly removalLatencySeconds: number | null;
};

/** The order of sessions. `login`: as the daemon lists them. */
export const SORTS = ['login', 'state', 'throughput', 'latency', 'queue', 'target'] as const;
export type Sort = (typeof SORTS)[number];

export type TopState = {
  /** In the order of the daemon. */
  readonly rows: readonly SessionRow[];
  /** UniqueSessionId; null: the first one. */
  readonly selected: string | null;
  /** Sessions whose LUNs and paths are shown. */
  readonly unfolded: ReadonlySet<string>;
  readonly sort: Sort;
  readonly isReversed: boolean;
  /** Lines that the operator has scrolled beyond the selected session. */
  readonly scrolledLines: number;
  readonly hasEnded: boolean;
};

export const INITIAL_TOP: TopState = {
  rows: [],
  selected: null,
  unfolded: new Set(),
  sort: 'login',
  isReversed: false,
  scrolledLines: 0,
  hasEnded: false,
};

/** The state after a reading. `sessions`: all, if one is in an outage; else none. */
export function sampleReceived(
  state: TopState,
  statistics: readonly StatisticsView[],
  sessions: readonly SessionView[],
): TopState {
  const ids = new Set(statistics.map((view) => view.UniqueSessionId));
  return {
    ...state,
    rows: statistics.map((view) => rowOf(view, rowNamed(state, view.UniqueSessionId), sessions)),
    selected: state.selected !== null && ids.has(state.selected) ? state.selected : null,
    unfolded: new Set([...state.unfolded].filter((id) => ids.has(id))),
  };
}

/** True if the details of an outage are wanted: a session is away, or a LUN is to be removed. */
export function isInOutage(view: StatisticsView): boolean {
  return view.state !== 'loggedIn' || view.removalInSeconds !== null;
}

/** The rows as the operator has sorted them. */
export function sortedRows({ rows, sort, isReversed }: TopState): readonly SessionRow[] {
  const sorted = rows.toSorted((one, other) => ORDERS[sort](one, other));
  return isReversed ? sorted.reverse() : sorted;
}

/** The selected session; null if there is no session. */
export function selectedId(state: TopState): string | null {
  return state.selected ?? sortedRows(state)[0]?.view.UniqueSessionId ?? null;
}

/** Equal rows keep the order of the daemon. */
const ORDERS: Readonly<Record<Sort, (one: SessionRow, other: SessionRow) => number>> = {
  login: () => 0,
  state: (one, other) => urgency(other) - urgency(one),
  throughput: (one, other) => throughput(other) - throughput(one),
  latency: (one, other) => other.view.p99Ms - one.view.p99Ms,
  queue: (one, other) => queued(other) - queued(one),
  target: (one, other) => one.view.TargetiSCSIName.localeCompare(other.view.TargetiSCSIName),
};

/** Removed disks first, then those to be removed soonest, then sessions that are not logged in. */
function urgency({ view }: SessionRow): number {
  if (view.luns.some(({ lunState }) => lunState === 'removed')) return Infinity;
  if (view.removalInSeconds !== null) return 1 / (1 + view.removalInSeconds);
  return view.state === 'loggedIn' ? -1 : 0;
}

function throughput({ received, sent }: SessionRow): number {
  return received + sent;
}

function queued({ view }: SessionRow): number {
  return view.commandsInFlight + view.commandsWaiting + view.heldRequests;
}

function rowNamed(state: TopState, id: string): SessionRow | undefined {
  return state.rows.find(({ view }) => view.UniqueSessionId === id);
}

function rowOf(
  view: StatisticsView,
  last: SessionRow | undefined,
  sessions: readonly SessionView[],
): SessionRow {
  const seconds = secondsSince(last?.view, view);
  const rate = (field: 'BytesReceived' | 'BytesSent' | 'PDUResponsesReceived') =>
    perSecond(view[field], last?.view[field], seconds);
  const [received, sent] = [rate('BytesReceived'), rate('BytesSent')];
  const sample: Sample = {
    bytesPerSecond: received + sent,
    p99Ms: view.p99Ms,
    isAway: view.state !== 'loggedIn',
  };
  // The first reading has no rate yet.
  const history = last === undefined ? [] : [...last.history, sample].slice(-SAMPLES_MAX);
  return {
    view,
    received,
    sent,
    responses: rate('PDUResponsesReceived'),
    history,
    paths: pathRates(view, last?.view),
    outage: outageOf(sessions.find((one) => one.UniqueSessionId === view.UniqueSessionId)),
  };
}

function outageOf(session: SessionView | undefined): Outage | null {
  if (session === undefined) return null;
  const { lastError, nextAttemptInSeconds, options } = session;
  const latency = options['removalLatencySeconds'];
  return {
    lastError,
    nextAttemptInSeconds,
    removalLatencySeconds: typeof latency === 'number' ? latency : null,
  };
}
