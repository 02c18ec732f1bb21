import yargs, { type Argv } from 'yargs';
import type { Backend } from '../config/contract.js';
import { errorToText, reportError } from '../errors/error-report.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { type Command, DAEMON_COMMANDS } from './command-table.js';
import { runAttach, runServe, withAttachFlags, withServeFlags } from './commands/block.js';
import { runBootTestCommand, withBootTestFlags } from './commands/boot-test.js';
import { runCheck } from './commands/check.js';
import { runDemoCommand, withDemoFlags } from './commands/demo.js';
import { runExplain, withCode } from './commands/explain.js';
import { runPing, withPing } from './commands/ping.js';
import {
  runCapacity,
  runDiscover,
  runInquiry,
  runLuns,
  withPortal,
  withRaw,
  withUrl,
} from './commands/query.js';
import type { CliIo, CommandContext } from './context.js';
import { printError } from './print.js';
import { wrongUse } from './usage-errors.js';
import { readVersion } from './version.js';

const WIDTH_MAX = 100;
const TARGET = 'iscsi://192.0.2.1/iqn.2001-04.com.example:disk1';

const COMMANDS: readonly Command[] = [
  {
    usage: 'check <url>',
    summary: 'find out what a target is and does, and which options fit it; writes nothing',
    build: withUrl,
    run: runCheck,
    examples: [
      [`$0 check ${TARGET}`, 'every LUN; run this first'],
      [`$0 check ${TARGET}/0 --json`, 'one LUN, for programs'],
    ],
  },
  {
    usage: 'discover <portal>',
    summary: 'list the targets of a portal',
    build: withPortal,
    run: runDiscover,
    examples: [['$0 discover 192.0.2.1', 'list targets, with the URLs the other commands take']],
  },
  {
    usage: 'luns <url>',
    summary: 'list the LUNs of a target, with their sizes',
    build: (parser) => withRaw(withUrl(parser)),
    run: runLuns,
    examples: [[`$0 luns ${TARGET}`, 'what is there']],
  },
  {
    usage: 'inquiry <url>',
    summary: 'show what a LUN says about itself',
    build: (parser) =>
      withRaw(withUrl(parser)).option('vpd', {
        type: 'string',
        requiresArg: true,
        describe: 'a VPD page: hexadecimal, e.g. 83, or a name, e.g. limits',
      }),
    run: runInquiry,
    examples: [
      [`$0 inquiry ${TARGET}/0`, 'vendor, product, revision'],
      [`$0 inquiry ${TARGET}/0 --vpd 83 --json`, 'its identifiers'],
    ],
  },
  {
    usage: 'capacity <url>',
    summary: 'show the size of a LUN',
    build: (parser) => withRaw(withUrl(parser)),
    run: runCapacity,
    examples: [[`$0 capacity ${TARGET}/0`, 'blocks and bytes']],
  },
  {
    usage: 'ping <url>',
    summary: 'measure round trips to a target',
    build: withPing,
    run: runPing,
    examples: [[`$0 ping ${TARGET} --count 100 --interval 0.01`, 'latency statistics']],
  },
  {
    usage: 'serve <url>',
    summary: 'serve LUNs over NBD on a unix socket; needs no root and no kernel driver',
    build: withServeFlags,
    run: runServe,
    examples: [
      [`$0 serve ${TARGET}/0 --socket /tmp/disk.sock`, 'until SIGINT or SIGTERM'],
      [`$0 serve ${TARGET}/0 --run 'qemu-img info "$uri"'`, 'for one command'],
    ],
  },
  {
    usage: 'attach [url]',
    summary: 'make LUNs into /dev/nbdX devices; needs root',
    build: withAttachFlags,
    run: runAttach,
    examples: [
      [`$0 attach ${TARGET}/0`, 'until SIGINT or SIGTERM'],
      ['$0 attach --boot --from ibft', 'the LUN the firmware started from'],
    ],
  },
  {
    usage: 'boot-test <url>',
    summary: 'boot the image on a LUN in QEMU and say whether it comes up',
    build: withBootTestFlags,
    run: runBootTestCommand,
    examples: [
      [`$0 boot-test ${TARGET}/0`, 'the LUN is not touched'],
      [`$0 boot-test ${TARGET}/0 --expect 'Startup finished'`, 'and says this on its console'],
    ],
  },
  {
    usage: 'demo',
    summary: 'show it all on this machine: a target, a disk, an outage',
    build: withDemoFlags,
    run: runDemoCommand,
    examples: [['$0 demo', 'needs no target']],
  },
  ...DAEMON_COMMANDS,
  {
    usage: 'explain <code>',
    summary: 'say what an exit status, login status, sense code or errno means',
    build: withCode,
    run: runExplain,
    examples: [
      ['$0 explain 24', 'an exit status'],
      ['$0 explain 0201', 'a login status'],
      ['$0 explain 06/29/00', 'sense key, ASC and ASCQ'],
    ],
  },
];

/** Runs a command line; returns the exit status. Errors are printed, never thrown. */
export async function runCli(
  argv: readonly string[],
  io: CliIo,
  backend: Backend,
): Promise<number> {
  const context: CommandContext = { io, backend, place: {} };
  const outcome = { exitCode: EXIT_CODES.ok.code as number };
  try {
    await buildParser(context, outcome, argv).parseAsync(withoutDashes(argv));
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

function buildParser(
  context: CommandContext,
  outcome: { exitCode: number },
  argv: readonly string[],
): Argv {
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
    parser.command(
      command.usage,
      command.summary,
      // The first group that is named comes first: the command's own flags before the session's.
      (sub) => withExamples(command.build(sub.group(['help'], 'Options:')), command),
      async (args) => {
        outcome.exitCode = await command.run(context, args);
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
