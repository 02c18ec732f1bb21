import yargs, { type Argv } from 'yargs';
import { invariant } from '../base/errors.js';
import type { Backend } from '../config/contract.js';
import { errorToText, reportError } from '../errors/error-report.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { COMMANDS, type Command } from './command-table.js';
import type { CliIo, CommandBody, CommandContext } from './context.js';
import { printError } from './print.js';
import { wrongUse } from './usage-errors.js';
import { readVersion } from './version.js';

const WIDTH_MAX = 100;
/** Runs a command line; returns the exit status. Errors are printed, never thrown. */
export async function runCli(
  argv: readonly string[],
  io: CliIo,
  backend: Backend,
): Promise<number> {
  const context: CommandContext = { io, backend, place: {} };
  const outcome = { exitCode: EXIT_CODES.ok.code as number };
  try {
    const bodies = await loadNamed(argv);
    await buildParser(context, { argv, bodies, outcome }).parseAsync(withoutDashes(argv));
    return outcome.exitCode;
  } catch (error) {
    const report = reportError(error, context.place);
    // A wrong command line may have lost the parsed flag, so the arguments are asked.
    if (argv.includes('--json')) io.stderr.write(`${JSON.stringify(report)}\n`);
    else printError(io, `iscsi-nbd: ${errorToText(report)}`);
    return report.exitCode;
  }
}

/**
 * The parser takes a command after `--` for mere text and runs none. No argument begins with a
 * dash, so without the `--` each word is what it is; for completion it is a word to complete.
 */
function withoutDashes(argv: readonly string[]): string[] {
  if (argv[0] === '--get-yargs-completions') return [...argv];
  const at = argv.indexOf('--');
  return argv.filter((_word, index) => index !== at);
}

type CommandBodies = ReadonlyMap<Command, CommandBody>;

/**
 * Loads the commands whose names are among the words. The parser runs, completes or describes no
 * other one, so a command starts without the modules of the others.
 */
async function loadNamed(argv: readonly string[]): Promise<CommandBodies> {
  const named = COMMANDS.filter(({ usage }) => argv.includes(nameOf(usage)));
  return new Map(
    await Promise.all(named.map(async (command) => [command, await command.load()] as const)),
  );
}

/** `luns` of `luns <url>`. */
function nameOf(usage: string): string {
  return usage.split(' ', 1)[0] ?? usage;
}

function buildParser(
  context: CommandContext,
  how: {
    readonly argv: readonly string[];
    readonly bodies: CommandBodies;
    readonly outcome: { exitCode: number };
  },
): Argv {
  const { argv, bodies, outcome } = how;
  const parser = yargs()
    .scriptName('iscsi-nbd')
    .usage('$0 <command>\n\nRemote iSCSI disks as local ones, in user space.')
    .locale('en')
    .exitProcess(false)
    .parserConfiguration({
      'camel-case-expansion': false,
      'dot-notation': false,
      'duplicate-arguments-array': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .wrap(Math.min(WIDTH_MAX, terminalWidth(context.io)))
    .version(readVersion())
    .alias('help', 'h')
    .strict()
    .demandCommand(1, 'No command is given.')
    .completion('completion', 'print a completion script for the shell')
    .epilogue('Exit statuses are explained by `iscsi-nbd explain <status>`.');
  for (const command of COMMANDS) {
    const body = bodies.get(command);
    parser.command(
      command.usage,
      command.summary,
      // The first group that is named comes first: the command's own flags before the session's.
      (sub) => withExamples(body?.build(sub.group(['help'], 'Options:')) ?? sub, command),
      async (args) => {
        invariant(body !== undefined, 'a command that runs is among the words');
        outcome.exitCode = await body.run(context, args);
      },
    );
  }
  return parser.fail((message, error) => {
    // The parser throws some of its own complaints, and passes on what a command throws.
    if (error !== undefined && error !== null && error.name !== 'YError') throw error;
    const usages = COMMANDS.map((command) => command.usage);
    throw wrongUse(message ?? error?.message, { argv, usages, flags: flagNames(parser) });
  });
}

function withExamples(parser: Argv, command: Command): Argv {
  for (const [line, what] of command.examples) parser.example(line, what);
  return parser;
}

/** Names of all flags of the command that was parsed. */
function flagNames(parser: Argv): string[] {
  const getOptions: unknown = 'getOptions' in parser ? parser.getOptions : undefined;
  if (typeof getOptions !== 'function') return [];
  const options: unknown = getOptions.call(parser);
  if (typeof options !== 'object' || options === null || !('key' in options)) return [];
  return Object.keys(options.key ?? {}).filter((name) => name.length > 1);
}

function terminalWidth(io: CliIo): number {
  const columns: unknown = 'columns' in io.stdout ? io.stdout.columns : undefined;
  return typeof columns === 'number' && columns > 0 ? columns : WIDTH_MAX;
}
