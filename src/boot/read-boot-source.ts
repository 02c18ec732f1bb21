import { readFileSync } from 'node:fs';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { BootSource } from './boot-source.js';
import { parseBootCommandLine } from './boot-source-cmdline.js';
import { readIbft } from './boot-source-ibft.js';

export const BOOT_FROM = ['auto', 'cmdline', 'ibft'] as const;
export type BootFrom = (typeof BOOT_FROM)[number];

/** Where the system shows what it was started with; other paths in tests. */
type BootPlaces = {
  readonly commandLine: string;
  readonly ibft: string;
};

const BOOT_PLACES: BootPlaces = {
  commandLine: '/proc/cmdline',
  ibft: '/sys/firmware/ibft',
};

/** The kernel's own limit is 2048 or 4096 bytes; a larger file is another one. */
const COMMAND_LINE_BYTES_MAX = 64 << 10;

/**
 * Finds the boot LUN: on the kernel command line, in the firmware's table (iBFT), or, with `auto`,
 * in the first of these that names one. Throws UsageError: 21 when there is none, 7 when what is
 * there is wrong.
 */
export function readBootSource(from: BootFrom, places: BootPlaces = BOOT_PLACES): BootSource {
  const asked = from === 'ibft' ? null : parseBootCommandLine(readCommandLine(places.commandLine));
  if (asked !== null && asked !== 'firmware') return asked;
  if (from === 'cmdline' && asked === null) {
    throw nothing(
      'The kernel command line names no LUN',
      'Add iscsi_nbd=iscsi://host/target/lun, or netroot=iscsi:….',
    );
  }
  const found = readIbft(places.ibft);
  if (found !== null) return found;
  const where =
    from === 'auto' && asked === null
      ? `Neither the kernel command line nor the firmware (${places.ibft}) names a LUN`
      : `The firmware left no iSCSI boot table (${places.ibft} is not there)`;
  throw nothing(
    where,
    'Add iscsi_nbd=iscsi://host/target/lun to the kernel command line, or load iscsi_ibft.',
  );
}

function readCommandLine(path: string): string {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.length <= COMMAND_LINE_BYTES_MAX) return text;
  } catch (cause) {
    const errno = codeOf(cause) || 'unknown';
    throw new UsageError(`The kernel command line cannot be read from ${path} (${errno}).`, {
      cause,
      exitCode: EXIT_CODES.error.code,
    });
  }
  throw new UsageError(`${path} is no kernel command line: it is larger than 64 KiB.`);
}

function nothing(what: string, next: string): UsageError {
  return new UsageError(`${what}. ${next}`, {
    exitCode: EXIT_CODES.nothingFound.code,
    code: 'ERR_NO_BOOT_SOURCE',
  });
}
