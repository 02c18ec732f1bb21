import type { Argv } from 'yargs';
import { createLog, isJournal, journalStream, LOG_LEVELS, type Logger } from '../config/log.js';
import { type Arguments, allowsColor, type CliIo, textArgument } from './context.js';

const STDERR = 2;

/** The flag of commands that log on standard error. */
export function withLogLevel<T>(parser: Argv<T>) {
  return parser.option('log-level', {
    choices: LOG_LEVELS,
    default: 'info',
    describe: 'what to log on standard error',
  });
}

/** The log of a command on standard error: words on a terminal, records for the journal. */
export function logOf(io: CliIo, args: Arguments): Logger {
  const wanted = textArgument(args, 'log-level');
  const toJournal = isJournal(io.environment['JOURNAL_STREAM'], STDERR);
  return createLog({
    level: LOG_LEVELS.find((known) => known === wanted) ?? 'info',
    pretty: io.stderr.isTTY === true && !toJournal && { hasColor: allowsColor(io) },
    stream: toJournal ? journalStream(io.stderr) : io.stderr,
  });
}
