import type { CliIo } from './context.js';

/** What is left of a text that is cut, at least. */
const TEXT_LENGTH_MIN = 8;
const GAP = 2;

/** Width of the terminal; `undefined` if it has none and nothing is to be cut. */
export function columnsOf(io: CliIo): number | undefined {
  if (io.stdout.isTTY !== true) return undefined;
  const columns: unknown = 'columns' in io.stdout ? io.stdout.columns : undefined;
  return typeof columns === 'number' && columns > 0 ? columns : undefined;
}

/**
 * The rows with texts cut so that a table of them fits into `columns`: the last column first, for
 * it holds the target's name, then the first, whose beginning says enough.
 */
export function fitted(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  columns: number | undefined,
): readonly (readonly string[])[] {
  if (columns === undefined) return rows;
  const widths = headings.map((heading, at) =>
    Math.max(heading.length, ...rows.map((row) => (row[at] ?? '').length)),
  );
  let excess = widths.reduce((sum, width) => sum + width + GAP, -GAP) - columns;
  const last = widths.length - 1;
  for (const at of [last, 0]) {
    const width = widths[at] ?? 0;
    const cut = Math.min(Math.max(excess, 0), Math.max(width - TEXT_LENGTH_MIN, 0));
    widths[at] = width - cut;
    excess -= cut;
  }
  return rows.map((row) =>
    row.map((text, at) => shortened(text, widths[at] ?? text.length, at === last)),
  );
}

/** The end of a name tells more than its beginning, which all targets of one maker share. */
function shortened(text: string, width: number, keepsEnd: boolean): string {
  if (text.length <= width) return text;
  return keepsEnd ? `…${text.slice(1 - width)}` : `${text.slice(0, width - 1)}…`;
}
