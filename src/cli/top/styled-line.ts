import { styleText } from 'node:util';
import { printable } from '../print.js';

export type Style = 'red' | 'green' | 'yellow' | 'cyan' | 'magenta' | 'gray' | 'bold' | 'inverse';

/** A piece of a line, and how it looks. */
export type Segment = readonly [text: string, style?: Style];
export type Line = readonly Segment[];

/** The bars of a history, from 0 to the greatest value. */
const BARS = [...'▁▂▃▄▅▆▇█'];
const AWAY = '·';
const FULL = '█';
const EMPTY = '░';

/** The line for a terminal: cut to its columns, without colours if it has none. */
export function painted(
  line: Line,
  { columns, hasColor }: { readonly columns: number; readonly hasColor: boolean },
): string {
  let left = columns;
  let text = '';
  const all = line.reduce((sum, [piece]) => sum + piece.length, 0);
  for (const [piece, style] of line) {
    const isCut = all > columns && piece.length >= left;
    const cut = printable(isCut ? `${piece.slice(0, Math.max(0, left - 1))}…` : piece);
    const isStyled = hasColor && style !== undefined && cut !== '';
    // Node would look at its own standard output, which may be another one.
    text += isStyled ? styleText(style, cut, { validateStream: false }) : cut;
    left -= cut.length;
    if (left <= 0) break;
  }
  return hasColor ? text : text.trimEnd();
}

/** The last `width` values as bars, right-aligned; null is an outage. */
export function sparkline(values: readonly (number | null)[], width: number): string {
  const shown = values.slice(-width);
  const top = Math.max(...shown.map((value) => value ?? 0), Number.MIN_VALUE);
  const bars = shown.map((value) => {
    if (value === null) return AWAY;
    return BARS[Math.round((value / top) * (BARS.length - 1))] ?? AWAY;
  });
  return bars.join('').padStart(width);
}

/** A bar of `width` columns of which `share` (0 to 1) is full: never empty before 0. */
export function barOf(share: number, width: number): string {
  const full = Math.ceil(Math.min(Math.max(share, 0), 1) * width);
  return FULL.repeat(full) + EMPTY.repeat(width - full);
}
