import { styleText } from 'node:util';
import type { DestinationStream } from 'pino';

/** pino's levels from this number on, by what a person reads. */
const LEVELS = [
  { from: 50, word: 'ERROR', style: 'red' },
  { from: 40, word: 'WARN', style: 'yellow' },
  { from: 30, word: 'INFO', style: 'green' },
  { from: 0, word: 'DEBUG', style: 'blue' },
] as const;

/** What pino writes into a line, as far as a person reads it. */
type Entry = {
  readonly time: string;
  readonly level: number;
  readonly msg?: string;
  readonly err?: { readonly stack?: string };
};

/** Turns JSON lines of pino into lines for a person: time, level, message, an error's stack. */
export function prettyStream(
  output: DestinationStream,
  { hasColor }: { readonly hasColor: boolean },
): DestinationStream {
  return {
    write(line) {
      const { time, level, msg = '', err }: Entry = JSON.parse(line);
      const { word, style } = LEVELS.find(({ from }) => level >= from) ?? LEVELS[3];
      const clock = new Date(time).toTimeString().slice(0, 8);
      // Node would look at its own standard output, which may be another one.
      const heading = hasColor ? styleText(style, word, { validateStream: false }) : word;
      const text = err?.stack === undefined ? msg : `${msg}\n${err.stack}`;
      output.write(`[${clock}] ${heading}: ${withoutControls(text)}\n`);
    },
  };
}

/** Text of a target without what could move the cursor of a terminal; lines of a stack stay. */
function withoutControls(text: string): string {
  return text.replace(/(?!\n)\p{C}/gu, '?');
}
