import type { Argv } from 'yargs';
import { stateDirectoryOf } from '../config/initiator-name.js';
import type { Logger } from '../config/log.js';
import type { VolumesPlace } from '../volume/open-volumes.js';
import { type Arguments, type CommandContext, textArgument } from './context.js';
import { controlPathOf } from './control-session.js';
import { logOf, withLogLevel } from './stderr-log.js';

const RUN_DIRECTORY = '/run/iscsi-nbd';

/** Flags of the commands that have volumes. */
export function withVolumeFlags(parser: Argv): Argv {
  const text = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const;
  return withLogLevel(
    parser
      .option('state-directory', text('where volumes are written down [/var/lib/iscsi-nbd]'))
      .option(
        'run-directory',
        text(`where secrets are for the daemon, in memory [${RUN_DIRECTORY}]`),
      ),
  );
}

/** Where the volumes of a command are, with its log. */
export function placeOfVolumes(
  context: CommandContext,
  args: Arguments,
  kind: VolumesPlace['kind'],
): VolumesPlace & { readonly log: Logger } {
  const { io } = context;
  const log = logOf(io, args);
  return {
    kind,
    stateDirectory: textArgument(args, 'state-directory') ?? stateDirectoryOf(io.environment),
    runDirectory: textArgument(args, 'run-directory') ?? RUN_DIRECTORY,
    controlPath: controlPathOf(context, args),
    warn: (message) => log.warn(message),
    log,
  };
}
