import { closestMatch } from '../base/closest-match.js';
import { UsageError } from '../base/errors.js';
import {
  flagOf,
  isProcessOption,
  OPTION_NAMES,
  OPTION_ROWS,
  type OptionName,
} from '../config/config-options.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { SessionTimers } from '../iscsi/session/session-config.js';
import type { PathMember } from '../session/paths/path-member.js';
import type { DaemonSession } from './daemon-session.js';

/** When another value of an option counts; `nextLogin`: after a logout. */
export type Applies = 'now' | 'nextAttempt' | 'nextReconnect' | 'nextLogin';

type LiveRow = {
  /** Each session of several paths has its own. */
  readonly timer?: keyof SessionTimers;
  readonly applies: Applies;
  get(session: DaemonSession): number;
  set(session: DaemonSession, value: number): void;
};

/** Options that a running session takes, and when each counts. */
const LIVE_OPTIONS = {
  removalLatencySeconds: {
    applies: 'now',
    get: ({ stack }) => stack.handle.removalTimers.removalLatencyMs / 1000,
    set: ({ stack }, seconds) => stack.setRemovalLatency(seconds),
  },
  reconnectIntervalSeconds: timer('reconnectIntervalMs', 'nextAttempt'),
  loginTimeoutSeconds: timer('loginTimeoutMs', 'nextAttempt'),
  // The keep-alive of a connection is made when the connection logs in.
  noopIntervalSeconds: timer('noopIntervalMs', 'nextReconnect'),
  noopTimeoutSeconds: timer('noopTimeoutMs', 'nextReconnect'),
  taskTimeoutSeconds: timer('taskTimeoutMs', 'now'),
  abortTimeoutSeconds: timer('abortTimeoutMs', 'now'),
  logicalUnitResetTimeoutSeconds: timer('logicalUnitResetTimeoutMs', 'now'),
  queueDepthMax: {
    applies: 'now',
    get: ({ stack }) => stack.queueDepthMax,
    set: ({ stack }, commands) => stack.setQueueDepthMax(commands),
  },
  heldBytesMax: {
    applies: 'now',
    get: ({ stack }) => stack.resources.budget.bytesMax,
    set: ({ stack }, bytes) => stack.resources.budget.limitBytes(bytes),
  },
} as const satisfies Partial<Record<OptionName, LiveRow>>;

type LiveOption = keyof typeof LIVE_OPTIONS;
const LIVE_NAMES = Object.keys(LIVE_OPTIONS) as readonly LiveOption[];

/** Seconds, bytes or commands; `never` for no removal. */
export type LiveValue = number | 'never';

export type ChangedOption = {
  readonly option: string;
  readonly before: LiveValue;
  readonly value: LiveValue;
  readonly applies: Applies;
};

export type Setting = {
  readonly option: OptionName;
  /** As the configuration file writes it; null without one. */
  readonly value: unknown;
  readonly applies: Applies;
};

/** When another value of an option counts; `nextStart`: of the process that serves. */
export function appliesOf(option: OptionName): Applies | 'nextStart' {
  if (isProcessOption(option)) return 'nextStart';
  return isLive(option) ? LIVE_OPTIONS[option].applies : 'nextLogin';
}

/**
 * Changes an option of a running session, in all the sessions over which its disks are reached; of
 * one path only, where that is given. Throws UsageError for another or a wrong value.
 */
export function setSessionOption(
  session: DaemonSession,
  name: string,
  value: unknown,
  path: PathMember | null = null,
): ChangedOption {
  const option = liveOption(name);
  const { schema, expects } = OPTION_ROWS[option];
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const shown = JSON.stringify(value)?.slice(0, 60);
    throw new UsageError(`${option} must be ${expects}, not ${shown}.`);
  }
  const row: LiveRow = LIVE_OPTIONS[option];
  if (path !== null) return setPathTimer(session, { option, path, seconds: parsed.data });
  const before = shownValue(row.get(session));
  row.set(session, parsed.data);
  return { option, before, value: shownValue(row.get(session)), applies: row.applies };
}

/** What a running session takes, as it is now. */
export function liveValues(session: DaemonSession): Record<LiveOption, LiveValue> {
  const entries = LIVE_NAMES.map((name) => [name, shownValue(LIVE_OPTIONS[name].get(session))]);
  return Object.fromEntries(entries) as Record<LiveOption, LiveValue>;
}

/** Every option of a session, and when another value would count. Secrets are named by file. */
export function settingsOf(session: DaemonSession): Setting[] {
  const live: Partial<Record<OptionName, LiveValue>> = liveValues(session);
  const { config, initiatorName } = session.plan;
  const given = { ...config.values, initiatorName, sessionType: session.options.sessionType };
  const names = OPTION_NAMES.filter((option) => !isProcessOption(option));
  return names.map((option) => {
    const row: LiveRow | undefined = isLive(option) ? LIVE_OPTIONS[option] : undefined;
    const value = live[option] ?? given[option] ?? null;
    return { option, value, applies: row?.applies ?? 'nextLogin' };
  });
}

function timer(name: keyof SessionTimers, applies: Applies): LiveRow {
  return {
    applies,
    timer: name,
    get: ({ timers }) => timers[name] / 1000,
    set: ({ stack, timers }, seconds) => {
      timers[name] = seconds * 1000;
      for (const { client } of stack.paths?.members ?? []) {
        client.session.timers[name] = seconds * 1000;
      }
    },
  };
}

function setPathTimer(
  { sessionId }: DaemonSession,
  how: { readonly option: LiveOption; readonly path: PathMember; readonly seconds: number },
): ChangedOption {
  const { option, path, seconds } = how;
  const row: LiveRow = LIVE_OPTIONS[option];
  if (row.timer === undefined) {
    throw new UsageError(
      `${option} belongs to the disks, not to one of their paths: set it for session ${sessionId}.`,
    );
  }
  const { timers } = path.client.session;
  const before = shownValue(timers[row.timer] / 1000);
  timers[row.timer] = seconds * 1000;
  return { option, before, value: shownValue(seconds), applies: row.applies };
}

function isLive(name: OptionName): name is LiveOption {
  return name in LIVE_OPTIONS;
}

function liveOption(name: string): LiveOption {
  // A flag's name is taken as well: removal-latency for removalLatencySeconds.
  const wanted = plain(name);
  const found = OPTION_NAMES.find((known) => [plain(known), plain(flagOf(known))].includes(wanted));
  if (found !== undefined && isLive(found)) return found;
  if (found !== undefined && isProcessOption(found)) {
    throw new UsageError(
      `${found} is the daemon's, not a session's: it counts from the daemon's next start on.`,
      { exitCode: EXIT_CODES.notSupported.code, code: 'ERR_NOT_LIVE' },
    );
  }
  if (found !== undefined) {
    throw new UsageError(
      `${found} is settled at the login: log out and in again with another value. ` +
        `A running session takes ${LIVE_NAMES.join(', ')}.`,
      { exitCode: EXIT_CODES.notSupported.code, code: 'ERR_NOT_LIVE' },
    );
  }
  const near = closestMatch(name, OPTION_NAMES);
  const hint =
    near === undefined ? ` There are ${LIVE_NAMES.join(', ')}.` : ` Did you mean ${near}?`;
  throw new UsageError(`There is no option ${JSON.stringify(name.slice(0, 60))} to set.${hint}`);
}

function plain(name: string): string {
  return name.toLowerCase().replace(/[-_]/g, '');
}

function shownValue(value: number): LiveValue {
  return Number.isFinite(value) ? value : 'never';
}
