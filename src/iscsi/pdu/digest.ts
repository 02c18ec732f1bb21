import { crc32c } from '../../base/crc32c.js';
import { FRAGMENT_NUMBERS, type Fragments } from '../../base/fragments.js';

/**
 * CRC32C of `buffer[start…end)`, continuing from `seed` (0 to begin); for headers, padding and
 * control data (RFC 7143 §11.2.3 (Header Digest and Data Digest)).
 */
export const crc32cOf: (buffer: Buffer, start: number, end: number, seed: number) => number =
  crc32c;

/** CRC32C of bytes `start … start+length` of `payload`. */
export function crc32cOfSlice(payload: Fragments, start: number, length: number): number {
  const { pool, table } = payload;
  let crc = 0;
  let skip = start;
  let left = length;
  for (let at = 0; left > 0; at += FRAGMENT_NUMBERS) {
    const size = table[at + 2] ?? 0;
    if (skip >= size) {
      skip -= size;
      continue;
    }
    const take = Math.min(size - skip, left);
    crc = pool.crc32c(table[at] ?? 0, (table[at + 1] ?? 0) + skip, take, crc);
    left -= take;
    skip = 0;
  }
  return crc;
}
