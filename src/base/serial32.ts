/** Serial number arithmetic on 32 bits (RFC 1982), as RFC 7143 §4.2.2.1 (Command Numbering and
 * Acknowledging) asks for CmdSN, StatSN and DataSN. Values are unsigned 32-bit numbers. */

/** `value + step` modulo 2^32. */
export function serialAdd(value: number, step: number): number {
  return (value + step) >>> 0;
}

/** Signed distance from `from` to `to`, in -2^31 … 2^31-1. */
export function serialDistance(from: number, to: number): number {
  return (to - from) | 0;
}

/** True when `left` comes before `right`. */
export function serialLess(left: number, right: number): boolean {
  return ((left - right) | 0) < 0;
}
