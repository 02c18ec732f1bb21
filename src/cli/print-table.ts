import Table from 'cli-table3';
import type { CliIo } from './context.js';
import { printable, printLine } from './print.js';

const BARE = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** Plain columns under headings, so that the lines can be cut and searched. */
export function printTable(
  io: CliIo,
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): void {
  const table = new Table({
    chars: BARE,
    head: [...headings],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  table.push(...rows.map((row) => row.map(printable)));
  for (const line of table.toString().split('\n')) printLine(io, line.trimEnd());
}
