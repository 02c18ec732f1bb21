import { crc32c } from '@node-rs/crc32';

/**
 * CRC32C (Castagnoli) of `buffer[start…end)`, continuing from `seed` (0 to begin): the only digest
 * RFC 7143 §13.1 (HeaderDigest and DataDigest) defines.
 */
export function crc32cOf(buffer: Buffer, start: number, end: number, seed: number): number {
  return crc32c(buffer.subarray(start, end), seed);
}
