import { formatHostPort } from '../config/target-url.js';
import type { SessionView } from '../supervisor/session-report.js';
import type { CliIo } from './context.js';
import { lunStateText, lunTroubles, retainedText } from './lun-text.js';
import { pathText, pathTroubles, usablePathsText } from './path-text.js';
import { printable, printLine } from './print.js';
import { printTable } from './print-table.js';
import { columnsOf, fitted } from './table-width.js';

const TYPES = ['discovery', 'informational', 'data', 'boot'];

const APPLIES: Readonly<Record<string, string>> = {
  now: 'now',
  nextAttempt: 'from the next login attempt on',
  nextReconnect: 'from the next connection on',
  nextLogin: 'after a logout and a new login',
};

/** When another value of an option counts, for people. */
export function appliesText(applies: string): string {
  return APPLIES[applies] ?? applies;
}

/** A line for each session, and below them what is wrong with those and their LUNs. */
export function printSessions(io: CliIo, sessions: readonly SessionView[]): void {
  const hasPaths = sessions.some(({ paths }) => paths.length > 0);
  const hasWorkers = sessions.some(({ worker }) => worker !== undefined);
  const rows = sessions.map((session) => [
    session.UniqueSessionId,
    session.state,
    TYPES[session.Type] ?? '',
    formatHostPort(session.portal),
    String(session.devices.length),
    ...(hasPaths ? [usablePathsText(session.paths)] : []),
    ...(hasWorkers ? [String(session.worker ?? '-')] : []),
    session.TargetiSCSIName,
  ]);
  const more = [...(hasPaths ? ['PATHS'] : []), ...(hasWorkers ? ['WORKER'] : [])];
  const headings = ['SESSION', 'STATE', 'TYPE', 'PORTAL', 'LUNS', ...more, 'TARGET'];
  printTable(io, headings, fitted(headings, rows, columnsOf(io)));
  for (const session of sessions) {
    const trouble = troubleOf(session);
    const troubles = [
      ...(trouble === '' ? [] : [trouble]),
      ...lunTroubles(session.devices),
      ...pathTroubles(session.paths),
    ];
    for (const text of troubles) printLine(io, printable(`${session.UniqueSessionId}: ${text}`));
  }
}

/** Everything about one session. */
export function printSession(io: CliIo, session: SessionView): void {
  const { keys, quirks, devices, paths, ConnectionsList, options, settings, ...facts } = session;
  printNamed(io, {
    ...facts,
    quirks: quirks.map(({ quirk, section, what }) => `${quirk} (RFC 7143 §${section}): ${what}`),
    Connection: ConnectionsList.flatMap((connection) => pairs(connection)),
    device: devices.map((device) => {
      const where = device.device ?? device.uri ?? '-';
      const why = device.lastError === null ? '' : `  ${device.lastError}`;
      return `LUN ${device.lun}  ${where}  ${lunStateText(device)}${retainedText(device)}${why}`;
    }),
    ...(paths.length === 0 ? {} : { path: paths.map(pathText) }),
  });
  printLine(io, '');
  printTable(
    io,
    ['KEY', 'OFFERED', 'DECLARED BY TARGET', 'IN FORCE'],
    keys.map((row) => [row.key, row.offered ?? '-', row.declaredByTarget ?? '-', row.inForce]),
  );
  printLine(io, '');
  printTable(
    io,
    ['OPTION', 'VALUE', 'ANOTHER VALUE COUNTS'],
    settings.map((row) => [row.option, settingText(row.value), appliesText(row.applies)]),
  );
}

/** Why a session is away, and the next step; empty while all is well. */
function troubleOf(session: SessionView): string {
  const { lastError, nextAttemptInSeconds: attempt, removalInSeconds: removal } = session;
  if (session.state === 'loggedIn' || lastError === null) return '';
  return [
    lastError,
    attempt === null ? '' : `next attempt in ${attempt} s`,
    removal === null ? '' : `devices are removed in ${removal} s`,
  ]
    .filter((part) => part !== '')
    .join('; ');
}

/** The fields under the names that the API and Microsoft's documents have for them. */
function printNamed(io: CliIo, fields: Readonly<Record<string, unknown>>): void {
  const width = Math.max(...Object.keys(fields).map((name) => name.length));
  for (const [name, value] of Object.entries(fields)) {
    const lines = Array.isArray(value) ? value.map(plainText) : [plainText(value)];
    for (const [at, line] of (lines.length === 0 ? ['-'] : lines).entries()) {
      printLine(io, `${(at === 0 ? name : '').padEnd(width)}  ${printable(line)}`);
    }
  }
}

function settingText(value: unknown): string {
  if (!Array.isArray(value)) return plainText(value);
  return value.length === 0 ? '-' : value.map(plainText).join(',');
}

function plainText(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value !== 'object') return String(value);
  const { host, port } = value as { host?: unknown; port?: unknown };
  if (typeof host === 'string' && typeof port === 'number') return formatHostPort({ host, port });
  return pairs(value).join(', ');
}

function pairs(fields: object): string[] {
  return Object.entries(fields).map(([name, value]) => `${name} ${value ?? '-'}`);
}
