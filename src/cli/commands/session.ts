import { resolve } from 'node:path';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { flagOf, OPTION_NAMES, type OptionName } from '../../config/config-options.js';
import { formatHostPort, parsePortalArgument } from '../../config/target-url.js';
import { askDaemon, type ControlClient, DAEMON_GONE } from '../../control/control-client.js';
import {
  changedSchema,
  devicesSchema,
  loginSchema,
  persistentListSchema,
  rescanSchema,
} from '../../control/control-results.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import type { SessionView } from '../../supervisor/session-report.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  requiredArgument,
  textArgument,
} from '../context.js';
import {
  allSessions,
  findPathOrSession,
  findSession,
  withControl,
  withDaemon,
  withSession,
} from '../control-session.js';
import { lunTroubles } from '../lun-text.js';
import { humanBytes, printable, printJson, printLine, warn } from '../print.js';
import { printTable } from '../print-table.js';
import { withProgress } from '../progress.js';
import { withSessionFlags } from '../session-flags.js';
import { appliesText, printSession, printSessions } from '../session-view.js';
import { columnsOf, fitted } from '../table-width.js';

/** MSiSCSI's number of Boot sessions. */
const BOOT = 3;

/** Options that name a file on this machine: the daemon has another working directory. */
const FILE_OPTIONS: readonly OptionName[] = ['chapSecretFile', 'targetChapSecretFile'];

export const LOGIN: CommandBody = { build: withLogin, run: runLogin };
export const LOGOUT: CommandBody = { build: withLogout, run: runLogout };
export const SESSIONS: CommandBody = { build: withControl, run: runSessions };
export const SESSION: CommandBody = { build: withSession, run: runSession };
export const DEVICES: CommandBody = { build: withControl, run: runDevices };
export const RESCAN: CommandBody = { build: withSession, run: runRescan };
export const SET: CommandBody = { build: withSet, run: runSet };

function withLogin(parser: Argv): Argv {
  return withSessionFlags(withControl(parser))
    .positional('portal', { type: 'string', demandOption: true, describe: 'host[:port]' })
    .positional('target', { type: 'string', demandOption: true, describe: "the target's name" })
    .option('type', {
      choices: ['data', 'boot', 'informational'],
      describe: 'what the session is for [data]',
    })
    .option('persistent', { type: 'boolean', describe: 'log in again whenever the daemon starts' })
    .hide('config')
    .hide('cpu-affinity')
    .hide('busy-poll')
    .hide('session-type');
}

function withLogout(parser: Argv): Argv {
  return withSession(parser)
    .option('all', { type: 'boolean', describe: 'every session' })
    .option('force', { type: 'boolean', describe: 'also while a device of it is in use' });
}

function withSet(parser: Argv): Argv {
  return withSession(parser)
    .positional('key', { type: 'string', describe: 'e.g. removal-latency' })
    .positional('value', { type: 'string', describe: 'seconds, or never; a size; a number' });
}

/** `login <portal> <target>`. */
async function runLogin(context: CommandContext, args: Arguments): Promise<number> {
  const params = loginParams(context, args);
  const asking = withDaemon(context, args, async (client) => {
    try {
      return await askDaemon(client, loginSchema, 'LoginToTarget', params);
    } catch (error) {
      throw isGiven(args, 'persistent') ? await failedToKeep(client, params, error) : error;
    }
  });
  const login = await withProgress(context.io, 'logging in', asking);
  if (isGiven(args, 'json')) {
    printJson(context.io, login);
    return EXIT_CODES.ok.code;
  }
  const { session } = login;
  const how = login.existed ? 'is logged in already' : 'is logged in';
  printLine(context.io, `session ${session.UniqueSessionId} to ${session.TargetiSCSIName} ${how}`);
  for (const device of session.devices) {
    const where = device.device ?? device.uri ?? '';
    printLine(context.io, `${where}  ${humanBytes(device.sizeBytes)}  LUN ${device.lun}`);
  }
  return EXIT_CODES.ok.code;
}

/** The error of a persistent login, with a word on what the daemon does at its next start. */
async function failedToKeep(
  client: ControlClient,
  params: Readonly<Record<string, unknown>>,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof UsageError) || error.code === DAEMON_GONE) return error;
  const { logins } = await askDaemon(client, persistentListSchema, 'PersistentLogins');
  const target = params['TargetName'];
  const isKept = logins.some(
    (login) => login.TargetName === target && login.SessionType === params['SessionType'],
  );
  const next = isKept
    ? 'The login is kept: the daemon logs in at its next start. ' +
      `\`iscsi-nbd persistent remove ${target}\` forgets it.`
    : 'The login is not kept.';
  const { code, exitCode } = error;
  return new UsageError(`${error.message} ${next}`, { code, exitCode, cause: error });
}

/** The parameters of `LoginToTarget`: the flags that were given, by their options' names. */
export function loginParams(
  context: CommandContext,
  args: Arguments,
): Readonly<Record<string, unknown>> {
  if (textArgument(args, 'config') !== undefined) {
    throw new UsageError('--config: the daemon has a configuration of its own; give it there.');
  }
  const portal = parsePortalArgument(requiredArgument(args, 'portal'));
  const target = requiredArgument(args, 'target');
  context.place = { portal: formatHostPort(portal), target };
  if (portal.password !== undefined) {
    throw new UsageError('A password in the portal: use --chap-secret-file PATH.');
  }
  const options: Record<string, unknown> = {};
  for (const name of OPTION_NAMES) {
    const value = args[flagOf(name)];
    if (value === undefined || name === 'sessionType') continue;
    const isFile = FILE_OPTIONS.includes(name) && typeof value === 'string';
    options[name] = isFile ? resolve(value) : value;
  }
  if (portal.user !== undefined) options['chapUser'] ??= portal.user;
  return {
    TargetName: target,
    TargetPortal: formatHostPort(portal),
    SessionType: textArgument(args, 'type') ?? textArgument(args, 'session-type') ?? 'data',
    PersistentLogin: isGiven(args, 'persistent'),
    LoginOptions: options,
  };
}

/** `logout <session>`, `logout --all`. */
async function runLogout(context: CommandContext, args: Arguments): Promise<number> {
  const name = textArgument(args, 'session');
  const all = isGiven(args, 'all');
  if ((name === undefined) === !all) {
    throw new UsageError('logout needs a session, or --all for every one.');
  }
  return withDaemon(context, args, async (client) => {
    const found =
      name === undefined ? await allSessions(client) : [await findPathOrSession(client, name)];
    if (found.length === 0) throw noSession();
    const passesOver = ({ Type }: SessionView) => all && Type === BOOT && !isGiven(args, 'force');
    for (const { TargetiSCSIName } of found.filter(passesOver)) {
      const why = 'the system was started from it; --force logs it out too';
      warn(context.io, `${TargetiSCSIName}: ${why}.`);
    }
    const sessions = found.filter((session) => !passesOver(session));
    const failures: unknown[] = [];
    for (const session of sessions) {
      const gone = await logout(client, session, isGiven(args, 'force')).catch((error: unknown) => {
        failures.push(error);
        return false;
      });
      if (gone && !isGiven(args, 'json')) {
        printLine(context.io, `session ${session.UniqueSessionId} is logged out`);
      }
    }
    if (isGiven(args, 'json')) {
      const ids = sessions.map((session) => session.UniqueSessionId);
      printJson(context.io, { loggedOut: ids.length - failures.length, sessions: ids });
    }
    if (failures.length > 0) throw failures[0];
    return EXIT_CODES.ok.code;
  });
}

async function logout(
  client: ControlClient,
  session: SessionView,
  force: boolean,
): Promise<boolean> {
  try {
    await client.call('LogoutFromTarget', { UniqueSessionId: session.UniqueSessionId, force });
    return true;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const { code: vague } = EXIT_CODES.error;
    const exitCode = error.exitCode === vague ? EXIT_CODES.logoutFailed.code : error.exitCode;
    // What is lost is reported once: the next logout does not fail for it.
    const goesOn = ' The session continues: log it out again to end it.';
    const next = error.code === 'ERR_FLUSH_FAILED' ? goesOn : '';
    throw new UsageError(`${session.TargetiSCSIName}: ${error.message}${next}`, {
      code: error.code,
      exitCode,
    });
  }
}

/** `sessions`: a line for each. */
async function runSessions(context: CommandContext, args: Arguments): Promise<number> {
  const sessions = await withDaemon(context, args, allSessions);
  if (isGiven(args, 'json')) printJson(context.io, { sessions });
  else if (sessions.length === 0) throw noSession();
  else printSessions(context.io, sessions);
  return EXIT_CODES.ok.code;
}

/** `session <session>`: everything about one. */
async function runSession(context: CommandContext, args: Arguments): Promise<number> {
  const session = await withDaemon(context, args, (client) =>
    findSession(client, requiredArgument(args, 'session')),
  );
  if (isGiven(args, 'json')) printJson(context.io, session);
  else printSession(context.io, session);
  return EXIT_CODES.ok.code;
}

/** `devices`: every LUN of every session, and what it is doing. */
async function runDevices(context: CommandContext, args: Arguments): Promise<number> {
  const { devices } = await withDaemon(context, args, (client) =>
    askDaemon(client, devicesSchema, 'Devices'),
  );
  if (isGiven(args, 'json')) {
    printJson(context.io, { devices });
    return EXIT_CODES.ok.code;
  }
  if (devices.length === 0) {
    throw new UsageError('There is no device. `iscsi-nbd login` makes some.', {
      exitCode: EXIT_CODES.nothingFound.code,
    });
  }
  const rows = devices.map((device) => [
    device.device ?? device.socket ?? '-',
    humanBytes(device.sizeBytes),
    device.readOnly ? 'ro' : 'rw',
    String(device.lun),
    device.state,
    device.TargetiSCSIName,
  ]);
  const headings = ['DEVICE', 'SIZE', 'MODE', 'LUN', 'SESSION', 'TARGET'];
  printTable(context.io, headings, fitted(headings, rows, columnsOf(context.io)));
  for (const device of devices) {
    for (const trouble of lunTroubles([device])) {
      printLine(context.io, printable(`${device.UniqueSessionId}: ${trouble}`));
    }
  }
  return EXIT_CODES.ok.code;
}

/** `rescan [session]`: new LUNs become disks, gone ones go. */
async function runRescan(context: CommandContext, args: Arguments): Promise<number> {
  const name = textArgument(args, 'session');
  const asking = withDaemon(context, args, async (client) => {
    const params =
      name === undefined
        ? {}
        : { UniqueSessionId: (await findSession(client, name)).UniqueSessionId };
    return askDaemon(client, rescanSchema, 'Rescan', params);
  });
  const { sessions } = await withProgress(context.io, 'asking the targets', asking);
  if (isGiven(args, 'json')) printJson(context.io, { sessions });
  for (const session of isGiven(args, 'json') ? [] : sessions) {
    const added = session.added.length === 0 ? 'no new LUN' : `new: ${session.added.join(', ')}`;
    printLine(context.io, `session ${session.UniqueSessionId}: ${session.error ?? added}`);
  }
  const hasFailed = sessions.some((session) => session.error !== null);
  return (hasFailed ? EXIT_CODES.notConnected : EXIT_CODES.ok).code;
}

/** `set <session> <key> <value>`. */
async function runSet(context: CommandContext, args: Arguments): Promise<number> {
  const changed = await withDaemon(context, args, async (client) => {
    const { UniqueSessionId } = await findPathOrSession(client, requiredArgument(args, 'session'));
    const params = {
      UniqueSessionId,
      option: requiredArgument(args, 'key'),
      value: requiredArgument(args, 'value'),
    };
    return askDaemon(client, changedSchema, 'SetSessionOption', params);
  });
  const { option, before, value, applies } = changed;
  const words = `${option}: ${before} → ${value}; it counts ${appliesText(applies)}`;
  if (isGiven(args, 'json')) printJson(context.io, changed);
  else printLine(context.io, words);
  return EXIT_CODES.ok.code;
}

function noSession(): UsageError {
  return new UsageError('There is no session. `iscsi-nbd login` makes one.', {
    exitCode: EXIT_CODES.nothingFound.code,
    code: 'ERR_NO_SESSION',
  });
}
