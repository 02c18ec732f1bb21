import { UsageError } from '../base/errors.js';
import type { SessionTimers } from '../iscsi/session-config.js';
import { OPTION_NAMES, OPTION_ROWS, type OptionName } from './config-options.js';
import { EXIT_CODES } from './exit-codes.js';
import type { ManagedSession } from './managed-session.js';
import { nearest } from './nearest.js';

/** When a changed option counts. */
export type Applies = 'now' | 'nextAttempt' | 'nextReconnect';

type TimerRow = { readonly timer: keyof SessionTimers; readonly applies: Applies };

/** Options that a running session takes, and when each counts. */
const LIVE_OPTIONS = {
  removalLatencySeconds: { timer: 'removalLatencyMs', applies: 'now' },
  reconnectIntervalSeconds: { timer: 'reconnectIntervalMs', applies: 'nextAttempt' },
  loginTimeoutSeconds: { timer: 'loginTimeoutMs', applies: 'nextAttempt' },
  // The keep-alive of a connection is made when the connection logs in.
  noopIntervalSeconds: { timer: 'noopIntervalMs', applies: 'nextReconnect' },
  noopTimeoutSeconds: { timer: 'noopTimeoutMs', applies: 'nextReconnect' },
  taskTimeoutSeconds: { timer: 'taskTimeoutMs', applies: 'now' },
  abortTimeoutSeconds: { timer: 'abortTimeoutMs', applies: 'now' },
  logicalUnitResetTimeoutSeconds: { timer: 'logicalUnitResetTimeoutMs', applies: 'now' },
} as const satisfies Partial<Record<OptionName, TimerRow>>;

type LiveOption = keyof typeof LIVE_OPTIONS;

export type ChangedOption = {
  readonly option: string;
  /** In seconds; `never` for no removal. */
  readonly before: number | 'never';
  readonly value: number | 'never';
  readonly applies: Applies;
};

/** Changes a timer of a running session. Throws UsageError for another option or a wrong value. */
export function setSessionOption(
  session: ManagedSession,
  name: string,
  value: unknown,
): ChangedOption {
  const option = liveOption(name);
  const row = OPTION_ROWS[option];
  const parsed = row.schema.safeParse(value);
  if (!parsed.success) {
    const shown = JSON.stringify(value)?.slice(0, 60);
    throw new UsageError(`${option} must be ${row.expects}, not ${shown}.`);
  }
  const { timer, applies } = LIVE_OPTIONS[option];
  const before = session.timers[timer];
  const milliseconds = parsed.data * 1000;
  if (timer === 'removalLatencyMs') {
    session.stack.setRemovalLatency(milliseconds / 1000);
  } else {
    session.timers[timer] = milliseconds;
  }
  return {
    option,
    before: secondsOf(before),
    value: secondsOf(milliseconds),
    applies,
  };
}

/** Every timer of a session as its option, in seconds. */
export function timersInSeconds(session: ManagedSession): Record<LiveOption, number | 'never'> {
  const { timers } = session;
  const entries = Object.entries(LIVE_OPTIONS).map(([option, row]) => [
    option,
    secondsOf(timers[row.timer]),
  ]);
  return Object.fromEntries(entries) as Record<LiveOption, number | 'never'>;
}

function liveOption(name: string): LiveOption {
  // A flag's name is taken as well: removal-latency for removalLatencySeconds.
  const names = Object.keys(LIVE_OPTIONS) as LiveOption[];
  const wanted = plain(name);
  const found = names.find((known) => [plain(known), plain(known, 'short')].includes(wanted));
  if (found !== undefined) return found;
  const other = OPTION_NAMES.find((known) => plain(known) === wanted);
  if (other !== undefined) {
    throw new UsageError(
      `${other} is settled at the login: log out and in again with another value. ` +
        `A running session takes ${names.join(', ')}.`,
      { exitCode: EXIT_CODES.notSupported.code, code: 'ERR_NOT_LIVE' },
    );
  }
  const near = nearest(name, names);
  const hint = near === undefined ? ` There are ${names.join(', ')}.` : ` Did you mean ${near}?`;
  throw new UsageError(`There is no option ${JSON.stringify(name.slice(0, 60))} to set.${hint}`);
}

function plain(name: string, form?: 'short'): string {
  const text = form === 'short' ? name.replace(/Seconds$/, '') : name;
  return text.toLowerCase().replace(/[-_]/g, '');
}

function secondsOf(milliseconds: number): number | 'never' {
  return Number.isFinite(milliseconds) ? milliseconds / 1000 : 'never';
}
