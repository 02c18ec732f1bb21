import type { CliIo } from './context.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** `1.0 GiB`, `512 B`: a size for people, in powers of 1024. */
export function humanBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.95 would be shown as 1024.0.
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${bytes} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

/** Text of a target without what could move the cursor of a terminal. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, '?');
}

export function printLine(io: CliIo, line: string): void {
  io.stdout.write(`${line}\n`);
}

/** A whole answer as indented JSON. */
export function printJson(io: CliIo, value: unknown): void {
  printLine(io, JSON.stringify(value, null, 2));
}

export function warn(io: CliIo, text: string): void {
  printError(io, `warning: ${text}`);
}

/** Words for people, of which a target, a daemon or a file may have made a part. */
export function printError(io: CliIo, text: string): void {
  io.stderr.write(`${text.split('\n').map(printable).join('\n')}\n`);
}

/** `name   value` lines; lists and objects of a value are indented below it. */
export function printFields(io: CliIo, fields: Readonly<Record<string, unknown>>): void {
  const width = Math.max(...Object.keys(fields).map((name) => words(name).length));
  for (const [name, value] of Object.entries(fields)) {
    const items = Array.isArray(value) ? value : [value];
    const lines = items.length === 0 ? ['none'] : items.map(fieldText);
    lines.forEach((line, index) => {
      const heading = index === 0 ? words(name) : '';
      printLine(io, `${heading.padEnd(width)}  ${printable(line)}`.trimEnd());
    });
  }
}

function fieldText(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (value === null || value === undefined) return '-';
  if (typeof value !== 'object') return String(value);
  return Object.values(value).map(fieldText).join('  ');
}

/** `blockSizeBytes` → `block size bytes`. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
