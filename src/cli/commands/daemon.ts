import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { BOOT_FROM } from '../../boot/read-boot-source.js';
import { stateDirectoryOf } from '../../config/initiator-name.js';
import { CONTROL_PATH } from '../../control/control-protocol.js';
import { BOOT_DIRECTORY } from '../../daemon/boot-login.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { guarded } from '../backend.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { controlPathOf, withControl } from '../control-session.js';
import { Interrupts } from '../interrupts.js';
import { printLine } from '../print.js';
import { optionHelp } from '../session-flags.js';
import { logOf, withLogLevel } from '../stderr-log.js';
import { readVersion } from '../version.js';

const WAIT_SECONDS = '180';
const LOGINS = '16';

export const DAEMON: CommandBody = { build: withDaemonFlags, run: runDaemonCommand };

function withDaemonFlags(parser: Argv): Argv {
  const text = (describe: string) => ({ type: 'string', requiresArg: true, describe }) as const;
  const flags = withControl(parser)
    .option('control', text(`unix socket to listen on [${CONTROL_PATH}]`))
    .option('config', text('configuration file in place of /etc/iscsi-nbd/config.yaml'))
    .option('state-directory', text('where logins are kept [/var/lib/iscsi-nbd]'))
    .option('socket-directory', text('serve LUNs on NBD sockets in here, not as kernel devices'))
    .option('metrics-listen', text('Prometheus metrics on 127.0.0.1:PORT or a socket path'))
    .option('wait-for', text('ready only when these LUNs are attached: <target>/<lun>,…'))
    .option('wait-timeout', text(`seconds to wait for these LUNs [${WAIT_SECONDS}]`))
    .option('boot-from', {
      choices: BOOT_FROM,
      describe: `serve the boot LUN of this system; state and socket are in ${BOOT_DIRECTORY}`,
    })
    .option('take-over', {
      type: 'boolean',
      describe: 'take over the devices of a running daemon with the same state directory',
    })
    .option(
      'logins-max',
      text(`logins that the daemon performs concurrently at its start [${LOGINS}]`),
    )
    .option('cpu-affinity', text('processors to run on, e.g. 0-3,5 [all]'))
    .option('busy-poll', text(optionHelp('busyPollMicroseconds')))
    .option('workers', text(optionHelp('workers')));
  return withLogLevel(flags);
}

/** `daemon`: sessions and devices, in the foreground, until SIGTERM. */
async function runDaemonCommand(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const { runDaemon } = await guarded(() => import('../../daemon/daemon.js'));
  using interrupts = new Interrupts(io.signals);
  const configPath = textArgument(args, 'config');
  const socketDirectory = textArgument(args, 'socket-directory');
  const metricsListen = textArgument(args, 'metrics-listen');
  const cpuAffinity = textArgument(args, 'cpu-affinity');
  const busyPoll = textArgument(args, 'busy-poll');
  const workers = textArgument(args, 'workers');
  const bootFrom = BOOT_FROM.find((known) => known === textArgument(args, 'boot-from'));
  const isBoot = bootFrom !== undefined;
  const controlPath =
    isBoot && textArgument(args, 'control') === undefined
      ? join(BOOT_DIRECTORY, 'control.sock')
      : controlPathOf(context, args);
  const stateDirectory = isBoot ? BOOT_DIRECTORY : stateDirectoryOf(io.environment);
  const log = logOf(io, args);
  const ready = () => {
    const facts = { event: 'ready', time: new Date().toISOString(), control: controlPath };
    const words = `ready: the control socket is ${controlPath}`;
    printLine(io, isGiven(args, 'json') ? JSON.stringify({ ...facts, pid: process.pid }) : words);
  };
  const running = runDaemon(
    {
      controlPath,
      stateDirectory: textArgument(args, 'state-directory') ?? stateDirectory,
      ...(isBoot ? { bootFrom } : {}),
      takeOver: isGiven(args, 'take-over'),
      ...(configPath === undefined ? {} : { configPath }),
      ...(socketDirectory === undefined ? {} : { socketDirectory: join(socketDirectory) }),
      ...(metricsListen === undefined ? {} : { metricsListen }),
      ...(cpuAffinity === undefined ? {} : { cpuAffinity }),
      ...(busyPoll === undefined ? {} : { busyPoll }),
      ...(workers === undefined ? {} : { workers }),
      entry: realpathSync(process.argv[1] ?? ''),
      waitFor: (textArgument(args, 'wait-for') ?? '').split(',').filter((name) => name !== ''),
      waitTimeoutSeconds: numberOf(args, 'wait-timeout', {
        // Without its root disk a system has nothing else to do than wait.
        initial: isBoot ? '86400' : WAIT_SECONDS,
        max: 86_400,
      }),
      loginsMax: numberOf(args, 'logins-max', { initial: LOGINS, max: 1024 }),
      version: readVersion(),
      environment: io.environment,
      log,
    },
    interrupts.signal,
    ready,
  );
  const forced = new Promise<void>((resolve) => {
    interrupts.forceSignal.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([running, forced]);
  return EXIT_CODES.ok.code;
}

function numberOf(
  args: Arguments,
  name: string,
  range: { readonly initial: string; readonly max: number },
): number {
  const text = textArgument(args, name) ?? range.initial;
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 1 && value <= range.max) return value;
  throw new UsageError(`--${name} must be a whole number from 1 to ${range.max}, not '${text}'.`);
}
