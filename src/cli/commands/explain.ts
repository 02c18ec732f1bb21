import type { Argv } from 'yargs';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { explain } from '../../errors/explain.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  requiredArgument,
} from '../context.js';
import { printFields, printJson } from '../print.js';

export const EXPLAIN: CommandBody = { build: withCode, run: runExplain };

function withCode(parser: Argv): Argv {
  return parser
    .positional('code', {
      type: 'string',
      demandOption: true,
      describe: 'exit status (24), login status (0201), sense (06/29/00), errno (EIO), standby',
    })
    .option('json', { type: 'boolean', describe: 'print JSON' });
}

/** `explain <code>`. */
async function runExplain(context: CommandContext, args: Arguments): Promise<number> {
  const explanation = explain(requiredArgument(args, 'code'));
  if (isGiven(args, 'json')) printJson(context.io, explanation);
  else printFields(context.io, explanation);
  return EXIT_CODES.ok.code;
}
