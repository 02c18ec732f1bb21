import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { BOOT_FROM } from '../../boot/read-boot-source.js';
import { LOG_LEVELS } from '../../config/log.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { prepareBootTarget, prepareTarget } from '../session-flags.js';
import { runStack } from '../session-runner.js';
import { withOptionalUrl, withUrl } from './query.js';

/** `sun_path` has 108 bytes with the final zero (unix(7)). */
const SOCKET_PATH_BYTES_MAX = 107;

export const SERVE: CommandBody = { build: withServeFlags, run: runServe };
export const ATTACH: CommandBody = { build: withAttachFlags, run: runAttach };

function withServeFlags(parser: Argv): Argv {
  return withRunFlags(withUrl(parser)).option('socket', {
    type: 'string',
    requiresArg: true,
    describe: 'unix socket to serve NBD on; with --run a temporary one by default',
  });
}

function withAttachFlags(parser: Argv): Argv {
  return withRunFlags(withOptionalUrl(parser))
    .option('boot', {
      type: 'boolean',
      describe: 'make a Boot session: one LUN, with the root file system; left at the end',
    })
    .option('from', {
      choices: BOOT_FROM,
      describe: 'with --boot and no URL: where the system says which LUN it starts from',
    })
    .option('keep-devices', {
      type: 'boolean',
      describe: 'on SIGINT or SIGTERM leave the devices to the next attach of the same LUNs',
    });
}

function withRunFlags(parser: Argv): Argv {
  return parser
    .option('run', {
      type: 'string',
      requiresArg: true,
      describe: 'run a shell command while it is ready, then close and exit with its status',
    })
    .option('log-level', {
      choices: LOG_LEVELS,
      default: 'info',
      describe: 'events to show on standard error (without --json)',
    });
}

/** `serve <url>`: LUNs as NBD exports on a unix socket. */
async function runServe(context: CommandContext, args: Arguments): Promise<number> {
  const given = textArgument(args, 'socket');
  const isRun = isRunGiven(args);
  if (given === undefined && !isRun) {
    throw new UsageError('serve needs --socket PATH, or --run CMD to serve one command.');
  }
  if (given === '') throw new UsageError('--socket is empty: give the path of the socket to make.');
  if (given !== undefined) checkSocketPath(resolve(given));
  const { url, options } = await prepareTarget(context, args, 'data');
  if (given !== undefined) {
    const socketPath = resolve(given);
    return runStack(context, { args, url }, (hooks) =>
      context.backend.serve(url, { ...options, socketPath }, hooks),
    );
  }
  const directory = temporaryDirectory(context);
  try {
    const socketPath = join(directory, 'nbd.sock');
    checkSocketPath(socketPath);
    return await runStack(context, { args, url }, (hooks) =>
      context.backend.serve(url, { ...options, socketPath }, hooks),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** `attach <url>`: LUNs as kernel devices. */
async function runAttach(context: CommandContext, args: Arguments): Promise<number> {
  isRunGiven(args);
  const boot = isGiven(args, 'boot') || textArgument(args, 'session-type') === 'boot';
  const from = BOOT_FROM.find((known) => known === textArgument(args, 'from'));
  const hasUrl = textArgument(args, 'url') !== undefined;
  if (from === undefined ? !hasUrl : hasUrl || !boot) {
    throw new UsageError('attach needs a URL, or --boot --from auto in its place.');
  }
  const { url, options } =
    from === undefined
      ? await prepareTarget(context, args, boot ? 'boot' : 'data')
      : await prepareBootTarget(context, args, from);
  const keepDevices = isGiven(args, 'keep-devices');
  return runStack(context, { args, url }, (hooks) =>
    context.backend.attach(url, { ...options, boot, keepDevices }, hooks),
  );
}

/** An empty command is a variable that was not set; a shell would do nothing and say 0. */
function isRunGiven(args: Arguments): boolean {
  const command = textArgument(args, 'run');
  if (command?.trim() === '') throw new UsageError('--run is empty: give the command to run.');
  return command !== undefined;
}

function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  throw new UsageError(
    `--socket: ${path} has ${bytes} bytes; a unix socket has at most ${SOCKET_PATH_BYTES_MAX}. ` +
      'Choose a shorter path.',
    { exitCode: EXIT_CODES.invalidUse.code },
  );
}

/** A directory for us alone (mode 0700). */
function temporaryDirectory(context: CommandContext): string {
  const parent = context.io.environment['XDG_RUNTIME_DIR'] ?? tmpdir();
  return mkdtempSync(join(parent, 'iscsi-nbd-'));
}
