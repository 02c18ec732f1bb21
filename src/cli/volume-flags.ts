import type { Argv } from 'yargs';
import { stateDirectoryOf } from '../config/initiator-name.js';
import { createLog, isJournal, journalStream, LOG_LEVELS, type Logger } from '../config/log.js';
import type { VolumesPlace } from '../volume/open-volumes.js';
import { type Arguments, type CommandContext, textArgument } from './context.js';
import { controlPathOf } from './control-session.js';

const STDERR = 2;
const RUN_DIRECTORY = '/run/iscsi-nbd';

/** Flags of the commands that have volumes. */
export function withVolumeFlags(parser: Argv): Argv {
  const text = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const;
  return parser
    .option('state-directory', text('where volumes are written down [/var/lib/iscsi-nbd]'))
    .option('run-directory', text(`where secrets are for the daemon, in memory [${RUN_DIRECTORY}]`))
    .option('log-level', {
      choices: LOG_LEVELS,
      default: 'info',
      describe: 'what to log on standard error',
    });
}

/** Where the volumes of a command are, with its log. */
export function placeOfVolumes(
  context: CommandContext,
  args: Arguments,
  kind: VolumesPlace['kind'],
): VolumesPlace & { readonly log: Logger } {
  const { io } = context;
  const wanted = textArgument(args, 'log-level');
  const toJournal = isJournal(io.environment['JOURNAL_STREAM'], STDERR);
  const log = createLog({
    level: LOG_LEVELS.find((known) => known === wanted) ?? 'info',
    pretty: io.stderr.isTTY === true && !toJournal,
    stream: toJournal ? journalStream(io.stderr) : io.stderr,
  });
  return {
    kind,
    stateDirectory: textArgument(args, 'state-directory') ?? stateDirectoryOf(io.environment),
    runDirectory: textArgument(args, 'run-directory') ?? RUN_DIRECTORY,
    controlPath: controlPathOf(context, args),
    warn: (message) => log.warn(message),
    log,
  };
}
