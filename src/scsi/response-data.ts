import { ProductError } from '../base/errors.js';

/** Data a device returned for a command do not have the shape the standard gives them. */
export class ScsiDataError extends ProductError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_SCSI_DATA', message, options);
  }
}

/** Throws ScsiDataError unless `data` has at least `bytesMin` bytes; `what` names the data. */
export function requireBytes(data: Buffer, bytesMin: number, what: string): void {
  if (data.length >= bytesMin) return;
  throw new ScsiDataError(`${what} has ${data.length} bytes, at least ${bytesMin} are needed`);
}

/**
 * The big-endian 64-bit number at `at`, or `null` where it is over 2^53-1 and so not exact.
 * The caller has checked that there are enough bytes.
 */
export function uint64OrNull(data: Buffer, at: number): number | null {
  const value = data.readUInt32BE(at) * 0x1_0000_0000 + data.readUInt32BE(at + 4);
  return Number.isSafeInteger(value) ? value : null;
}

/**
 * Text of bytes `start … end` without the padding at both ends. Bytes outside printable ASCII
 * become `?`, because this text reaches terminals, logs and device names.
 */
export function asciiField(data: Buffer, start: number, end: number): string {
  const text = data.toString('latin1', start, Math.min(end, data.length));
  const unpadded = text.replace(/\0+$/, '').replace(/^\0+/, '');
  return unpadded.replace(/[^\x20-\x7e]/g, '?').trim();
}
