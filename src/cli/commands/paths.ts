import { UsageError } from '../../base/errors.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import type { SessionView } from '../../supervisor/session-report.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { allSessions, findSession, withDaemon, withSession } from '../control-session.js';
import { groupText, pathTroubles } from '../path-text.js';
import { printable, printJson, printLine } from '../print.js';
import { printTable } from '../print-table.js';
import { columnsOf, fitted } from '../table-width.js';

export const PATHS: CommandBody = { build: withSession, run: runPaths };

/** `paths [session]`: every path of every disk that has several. */
async function runPaths(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const name = textArgument(args, 'session');
  const sessions = await withDaemon(context, args, async (client) =>
    name === undefined ? await allSessions(client) : [await findSession(client, name)],
  );
  const paths = sessions.flatMap(pathsOf);
  if (isGiven(args, 'json')) {
    printJson(io, { paths });
    return EXIT_CODES.ok.code;
  }
  if (paths.length === 0) {
    throw new UsageError(
      'No disk has several paths. `iscsi-nbd login` with --portals or --sessions-per-portal, or ' +
        'to the same target at another portal, adds paths.',
      { exitCode: EXIT_CODES.nothingFound.code, code: 'ERR_NO_PATHS' },
    );
  }
  const rows = paths.map((path) => [
    path.device ?? '-',
    String(path.lun),
    path.portal,
    path.pathState,
    groupText(path),
    String(path.commandsInFlight),
    String(path.failures),
    path.UniqueSessionId,
    path.TargetiSCSIName,
  ]);
  const headings = [
    ...['DISK', 'LUN', 'PORTAL', 'STATE', 'GROUP', 'QD', 'FAILURES'],
    ...['SESSION', 'TARGET'],
  ];
  printTable(io, headings, fitted(headings, rows, columnsOf(io)));
  for (const text of pathTroubles(paths)) printLine(io, printable(text));
  return EXIT_CODES.ok.code;
}

/** The paths of the disks of a session, with what they lead to. */
function pathsOf({ UniqueSessionId, devices, paths }: SessionView) {
  return paths.map((path) => {
    const disk = devices.find(({ lun }) => lun === path.lun);
    return {
      ...path,
      /** The session that `session` shows; those of the paths belong to it. */
      mainSessionId: UniqueSessionId,
      device: disk?.device ?? disk?.socket ?? null,
    };
  });
}
