import { setTimeout as sleep } from 'node:timers/promises';
import { invariant } from '../base/errors.js';
import type { OpenSession, ProductEvent, SessionHooks, TargetUrl } from '../config/contract.js';
import { createLog, LOG_LEVELS, type Logger } from '../config/log.js';
import { eventLevel } from '../daemon/event-log.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import {
  type Arguments,
  allowsColor,
  type CommandContext,
  isGiven,
  textArgument,
} from './context.js';
import { eventText, readyEvent, readyText, uriOf } from './event-text.js';
import { Interrupts, whenAborted } from './interrupts.js';
import { RunCommand } from './run-command.js';

/** Events kept while the first line, which is to be `ready`, is not yet printed. */
const EARLY_EVENTS_MAX = 1000;
/** How long they are kept from people. */
const EARLY_EVENTS_MS = 15_000;
/** How long a forced close may take before the process ends without it. */
const FORCED_CLOSE_MS = 3000;

type Subject = { readonly args: Arguments; readonly url: TargetUrl };

/**
 * Runs a stack until a signal, the end of `--run`, or its own end; closes it in order. Returns
 * the exit status: 0, or that of the command of `--run`.
 */
export async function runStack(
  context: CommandContext,
  subject: Subject,
  start: (hooks: SessionHooks) => Promise<OpenSession>,
): Promise<number> {
  using interrupts = new Interrupts(context.io.signals);
  const printer = new EventPrinter(context, subject);
  const hooks: SessionHooks = {
    onEvent: (event) => printer.event(event),
    signal: interrupts.signal,
  };
  const stack = await interrupts.orInterrupted(start(hooks));
  // Without a listener a rejection that comes while the stack is being closed ends the process.
  stack.closed.catch(() => {});
  printer.ready(stack);
  let status: number;
  try {
    status = await untilOver(context, subject, stack, interrupts);
  } catch (error) {
    await closeStack(stack, interrupts).catch(() => {});
    throw error;
  }
  await closeStack(stack, interrupts);
  return status;
}

async function untilOver(
  context: CommandContext,
  subject: Subject,
  stack: OpenSession,
  interrupts: Interrupts,
): Promise<number> {
  const over = stack.closed.then(() => EXIT_CODES.ok.code);
  const command = textArgument(subject.args, 'run');
  if (command === undefined) {
    const asked = whenAborted(interrupts.signal).then(() => EXIT_CODES.ok.code);
    return Promise.race([over, asked]);
  }
  const child = new RunCommand(command, { ...context.io.environment, ...exportVariables(stack) });
  // A terminal sends SIGINT to the command too, and the command decides what it means.
  const passesOn = () => interrupts.name !== 'SIGINT' || context.io.stdin.isTTY !== true;
  whenAborted(interrupts.signal).then(() => {
    if (passesOn()) child.kill(interrupts.name);
  });
  whenAborted(interrupts.forceSignal).then(() => child.kill('SIGKILL'));
  try {
    // The command ends on its own when its disk goes; its status is the one to give.
    return await Promise.race([child.finished, over.then(() => child.finished)]);
  } catch (error) {
    child.kill('SIGTERM');
    throw error;
  }
}

async function closeStack(stack: OpenSession, interrupts: Interrupts): Promise<void> {
  const forced = whenAborted(interrupts.forceSignal).then(async () => {
    const timeout = new AbortController();
    const bound = sleep(FORCED_CLOSE_MS, undefined, { signal: timeout.signal }).catch(() => {});
    await Promise.race([stack.close({ force: true }), bound]);
    timeout.abort();
  });
  await Promise.race([stack.close(), forced]);
}

/** What the command of `--run` finds in its environment. */
function exportVariables(stack: OpenSession): Record<string, string> {
  const first = stack.exports[0];
  if (first === undefined) return {};
  return {
    ...(first.device === undefined ? {} : { device: first.device }),
    ...(first.socket === undefined ? {} : { socket: first.socket, uri: uriOf(first) }),
  };
}

/**
 * Prints the ready lines first and then events as they happen. Before, it keeps them: when it
 * comes to nothing, the error alone says why. People who have to wait longer get a message at once.
 */
class EventPrinter {
  readonly #url: TargetUrl;
  readonly #json: boolean;
  /** With `--run` standard output is the command's. */
  readonly #output: NodeJS.WritableStream;
  readonly #log: Logger;
  #early: ProductEvent[] | null = [];
  readonly #patientUntilMs = performance.now() + EARLY_EVENTS_MS;

  constructor(context: CommandContext, subject: Subject) {
    const { io } = context;
    this.#url = subject.url;
    this.#json = isGiven(subject.args, 'json');
    const isRun = textArgument(subject.args, 'run') !== undefined;
    this.#output = isRun ? io.stderr : io.stdout;
    const wanted = textArgument(subject.args, 'log-level');
    const level = LOG_LEVELS.find((known) => known === wanted) ?? 'info';
    const pretty = io.stderr.isTTY === true && { hasColor: allowsColor(io) };
    this.#log = createLog({ level, pretty, stream: io.stderr });
  }

  event(event: ProductEvent): void {
    if (event.event === 'ready') return;
    if (this.#early !== null && (this.#json || performance.now() < this.#patientUntilMs)) {
      if (this.#early.length < EARLY_EVENTS_MAX) this.#early.push(event);
      return;
    }
    if (this.#json) {
      this.#line(JSON.stringify(event));
      return;
    }
    // The log writes the time itself.
    const { time, ...facts } = event;
    this.#log[eventLevel(event)](facts, eventText(event));
  }

  ready(stack: OpenSession): void {
    invariant(this.#early !== null, 'a stack is ready once');
    const early = this.#early;
    this.#early = null;
    for (const entry of stack.exports) {
      const event = readyEvent(stack, entry, new Date());
      this.#line(this.#json ? JSON.stringify(event) : readyText(this.#url, entry));
    }
    for (const event of early) this.event(event);
  }

  #line(text: string): void {
    this.#output.write(`${text}\n`);
  }
}
