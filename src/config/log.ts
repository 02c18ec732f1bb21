import { fstatSync } from 'node:fs';
import { type DestinationStream, type Logger, pino } from 'pino';
import { prettyStream } from './pretty-log.js';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Keys whose values are never written, at the top and two levels down. */
const SECRET_KEYS = ['secret', 'password', 'chap', 'challenge', 'response'];

/** The log: JSON lines on `stream`, or lines for a person if `pretty` is given. */
export function createLog(options: {
  readonly level: LogLevel;
  readonly pretty: false | { readonly hasColor: boolean };
  readonly stream: DestinationStream;
}): Logger {
  const paths = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);
  const settings = {
    level: options.level,
    base: null,
    redact: { paths, censor: '[secret]' },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  const { pretty, stream } = options;
  return pino(settings, pretty === false ? stream : prettyStream(stream, pretty));
}

/**
 * Whether a descriptor is the stream to the journal that `JOURNAL_STREAM` names by device and inode
 * (systemd.exec(5)): a child inherits the variable, but its output may go elsewhere.
 */
export function isJournal(journalStream: string | undefined, descriptor: number): boolean {
  if (journalStream === undefined || journalStream === '') return false;
  const { dev, ino } = fstatSync(descriptor);
  return journalStream === `${dev}:${ino}`;
}

/** pino's levels as syslog's, which journald takes from a line's beginning (sd-daemon(3)). */
export function journalStream(output: DestinationStream): DestinationStream {
  return {
    write(line) {
      const level = Number(/^\{"level":(\d+)/.exec(line)?.[1] ?? 30);
      const priority = level >= 50 ? 3 : level >= 40 ? 4 : level >= 30 ? 6 : 7;
      output.write(`<${priority}>${line}`);
    },
  };
}
