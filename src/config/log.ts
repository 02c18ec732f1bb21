import { fstatSync } from 'node:fs';
import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Keys whose values are never written, at the top and two levels down. */
const SECRET_KEYS = ['secret', 'password', 'chap', 'challenge', 'response'];

/** The log: JSON lines on `stream`, or lines for a person where `pretty` is set. */
export function createLog(options: {
  readonly level: LogLevel;
  readonly pretty: boolean;
  readonly stream: DestinationStream;
}): Logger {
  const paths = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);
  const settings = {
    level: options.level,
    base: null,
    redact: { paths, censor: '[secret]' },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  if (!options.pretty) return pino(settings, options.stream);
  const lines = pretty({
    destination: options.stream,
    colorize: true,
    sync: true,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname',
    hideObject: true,
  });
  return pino(settings, lines);
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
