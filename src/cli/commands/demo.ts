import type { Argv } from 'yargs';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { type Arguments, type CommandBody, type CommandContext, isGiven } from '../context.js';
import { Interrupts } from '../interrupts.js';
import { printLine } from '../print.js';

export const DEMO: CommandBody = { build: withDemoFlags, run: runDemoCommand };

function withDemoFlags(parser: Argv): Argv {
  return parser.option('json', { type: 'boolean', describe: 'print one JSON object per line' });
}

/** `demo`: the embedded target, a session to it, and an outage ridden out. */
async function runDemoCommand(context: CommandContext, args: Arguments): Promise<number> {
  using interrupts = new Interrupts(context.io.signals);
  await interrupts.orInterrupted(
    context.backend.runDemo({
      log: (line) => printLine(context.io, line),
      json: isGiven(args, 'json'),
      signal: interrupts.signal,
    }),
  );
  return EXIT_CODES.ok.code;
}
