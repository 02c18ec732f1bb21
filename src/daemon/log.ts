import { type Logger, pino } from 'pino';
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
  readonly stream: NodeJS.WritableStream;
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
