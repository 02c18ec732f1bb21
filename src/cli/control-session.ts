import type { Argv } from 'yargs';
import { UsageError } from '../base/errors.js';
import { askDaemon, ControlClient } from '../control/control-client.js';
import { CONTROL_PATH } from '../control/control-protocol.js';
import { sessionsSchema } from '../control/control-results.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { SessionView } from '../supervisor/session-report.js';
import { type Arguments, type CommandContext, textArgument } from './context.js';
import { Interrupts, whenAborted } from './interrupts.js';

/** Hex digits of a session's number that are enough when no other begins with them. */
const PREFIX_LENGTH_MIN = 4;

/** `--control` and `--json`, which every command for the daemon has. */
export function withControl(parser: Argv): Argv {
  return parser
    .option('control', {
      type: 'string',
      requiresArg: true,
      describe: `the daemon's socket (or ISCSI_NBD_CONTROL) [${CONTROL_PATH}]`,
    })
    .option('json', { type: 'boolean', describe: 'print JSON' });
}

export function withSession(parser: Argv): Argv {
  return withControl(parser).positional('session', {
    type: 'string',
    describe: "the session's number or its beginning, or the target's name",
  });
}

export function controlPathOf(context: CommandContext, args: Arguments): string {
  const fromEnvironment = context.io.environment['ISCSI_NBD_CONTROL'];
  return textArgument(args, 'control') ?? (fromEnvironment || CONTROL_PATH);
}

/** Runs `work` with the daemon; a signal ends it. */
export async function withDaemon<T>(
  context: CommandContext,
  args: Arguments,
  work: (client: ControlClient, interrupts: Interrupts) => Promise<T>,
): Promise<T> {
  using client = await ControlClient.connect(controlPathOf(context, args));
  using interrupts = new Interrupts(context.io.signals);
  const stopped = new Promise<never>((_resolve, reject) => {
    interrupts.signal.addEventListener('abort', () => reject(new Error('interrupted')));
  });
  stopped.catch(() => undefined);
  return await interrupts.orInterrupted(Promise.race([work(client, interrupts), stopped]));
}

/** Runs `work` until it is done, a signal comes (status 0), or the daemon goes (18). */
export async function watchDaemon(
  context: CommandContext,
  args: Arguments,
  work: (client: ControlClient, ended: Promise<void>) => Promise<void>,
): Promise<number> {
  using client = await ControlClient.connect(controlPathOf(context, args));
  using interrupts = new Interrupts(context.io.signals);
  const gone = new Promise<never>((_resolve, reject) => {
    client.onClosed = reject;
  });
  gone.catch(() => undefined);
  const ended = Promise.race([whenAborted(interrupts.signal), gone]);
  ended.catch(() => undefined);
  await Promise.race([work(client, ended), ended]);
  return EXIT_CODES.ok.code;
}

export async function allSessions(client: ControlClient): Promise<readonly SessionView[]> {
  return (await askDaemon(client, sessionsSchema, 'InitiatorSessionInfo')).sessions;
}

/** The session that `text` names. Throws UsageError 2 for none, 7 when it names several. */
export async function findSession(client: ControlClient, text: string): Promise<SessionView> {
  const sessions = await allSessions(client);
  const wanted = text.toLowerCase();
  const found = sessions.filter(
    (session) =>
      session.TargetiSCSIName === wanted ||
      (wanted.length >= PREFIX_LENGTH_MIN && session.UniqueSessionId.startsWith(wanted)),
  );
  const [first, ...more] = found;
  if (first === undefined) {
    throw new UsageError(`There is no session ${text}. \`iscsi-nbd sessions\` lists them.`, {
      exitCode: EXIT_CODES.sessionNotFound.code,
      code: 'ERR_NO_SESSION',
    });
  }
  if (more.length === 0) return first;
  const ids = found.map((session) => session.UniqueSessionId).join(', ');
  throw new UsageError(`${text} can be any of the sessions ${ids}: give the number.`);
}

/** As `findSession`, or that of one path of several: `text` is its whole UniqueSessionId. */
export async function findPathOrSession(client: ControlClient, text: string): Promise<SessionView> {
  const wanted = text.toLowerCase();
  for (const session of await allSessions(client)) {
    const isPath = session.paths.some(({ UniqueSessionId }) => UniqueSessionId === wanted);
    if (isPath) return { ...session, UniqueSessionId: wanted };
  }
  return findSession(client, text);
}
