import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { formatHostPort } from '../../config/target-url.js';
import { askDaemon } from '../../control/control-client.js';
import { persistentListSchema } from '../../control/control-results.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { withControl, withDaemon } from '../control-session.js';
import { printJson, printLine } from '../print.js';
import { printTable } from '../print-table.js';
import { columnsOf, fitted } from '../table-width.js';

export const PERSISTENT: CommandBody = { build: withPersistent, run: runPersistent };

function withPersistent(parser: Argv): Argv {
  return withControl(parser)
    .positional('action', { choices: ['list', 'remove'], demandOption: true })
    .positional('session', { type: 'string', describe: 'session number or target name to remove' });
}

/** `persistent list`, `persistent remove <session>`. */
async function runPersistent(context: CommandContext, args: Arguments): Promise<number> {
  return textArgument(args, 'action') === 'remove' ? remove(context, args) : list(context, args);
}

async function list(context: CommandContext, args: Arguments): Promise<number> {
  const { logins } = await withDaemon(context, args, (client) =>
    askDaemon(client, persistentListSchema, 'PersistentLogins'),
  );
  if (isGiven(args, 'json')) {
    printJson(context.io, { logins });
    return EXIT_CODES.ok.code;
  }
  if (logins.length === 0) {
    throw nothingFound('There is no persistent login. `iscsi-nbd login --persistent` makes one.');
  }
  const headings = ['SESSION', 'STATE', 'TYPE', 'PORTAL', 'TARGET'];
  const rows = logins.map((login) => [
    login.UniqueSessionId,
    login.state ?? '-',
    login.SessionType,
    formatHostPort(login.TargetPortal),
    login.TargetName,
  ]);
  printTable(context.io, headings, fitted(headings, rows, columnsOf(context.io)));
  return EXIT_CODES.ok.code;
}

async function remove(context: CommandContext, args: Arguments): Promise<number> {
  const name = textArgument(args, 'session');
  if (name === undefined) throw new UsageError('persistent remove needs a session or target name.');
  const removed = await withDaemon(context, args, async (client) => {
    const { logins } = await askDaemon(client, persistentListSchema, 'PersistentLogins');
    const found = logins.filter(
      (login) =>
        login.TargetName === name || (name.length >= 4 && login.UniqueSessionId.startsWith(name)),
    );
    if (found.length === 0) throw nothingFound(`There is no persistent login ${name}.`);
    if (found.length > 1) throw new UsageError(`${name} names several logins: give the number.`);
    for (const { UniqueSessionId } of found) {
      await client.call('RemovePersistentLogin', { UniqueSessionId });
    }
    return found;
  });
  if (isGiven(args, 'json')) printJson(context.io, { removed });
  for (const login of isGiven(args, 'json') ? [] : removed) {
    const still = login.state === null ? '' : '; its session continues until the logout';
    printLine(context.io, `${login.TargetName} is not logged in at the next start${still}`);
  }
  return EXIT_CODES.ok.code;
}

function nothingFound(message: string): UsageError {
  return new UsageError(message, {
    exitCode: EXIT_CODES.nothingFound.code,
    code: 'ERR_NOTHING_FOUND',
  });
}
