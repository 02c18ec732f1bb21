import { invariant } from '../base/errors.js';
import type { LunField } from './command.js';
import { requireBytes, ScsiDataError } from './response-data.js';

/**
 * Logical unit numbers (SAM-5 §4.7). The eight bytes are four levels of two bytes; bits 7–6 of a
 * level's first byte are its ADDRESS METHOD. Everything but the first level is zero for a logical
 * unit that is not behind another device.
 *   00b peripheral device: bits 5–0 bus, byte 1 target or LUN
 *   01b flat space: 14 bits LUN
 *   10b logical unit: bus, target and LUN of a SCSI parallel bus
 *   11b extended: bits 5–4 length (2, 4, 6 or 8 bytes), bits 3–0 method (1h well known, 2h flat)
 */

/** Numbers `lunField` can encode: 24 bits of extended flat space addressing. */
const LUN_NUMBER_MAX = 0xff_ffff;

const REPORT_LUNS_HEADER_BYTES = 8;
const LUN_FIELD_BYTES = 8;

/**
 * The field of a plain LUN number: peripheral device addressing up to 255, flat space up to 16383,
 * extended flat space above. A LUN taken from REPORT LUNS keeps the field it was reported with.
 */
export function lunField(number: number): LunField {
  invariant(
    Number.isInteger(number) && number >= 0 && number <= LUN_NUMBER_MAX,
    `LUN ${number} is outside 0 … ${LUN_NUMBER_MAX}`,
  );
  if (number <= 0xff) return { upper: number << 16, lower: 0 };
  if (number <= 0x3fff) return { upper: ((0x4000 | number) << 16) >>> 0, lower: 0 };
  return { upper: (0xd200_0000 | number) >>> 0, lower: 0 };
}

/** The plain number of a single-level LUN, or `null` for well-known and hierarchical ones. */
export function lunNumber(field: LunField): number | null {
  if (field.lower !== 0) return null;
  const { upper } = field;
  const method = upper >>> 30;
  if (method === 3) return upper >>> 24 === 0xd2 ? upper & 0xff_ffff : null;
  if ((upper & 0xffff) !== 0) return null;
  if (method === 0 && upper >>> 24 === 0) return upper >>> 16;
  return method === 1 ? (upper >>> 16) & 0x3fff : null;
}

/** Number of a well-known logical unit (1: REPORT LUNS), or `null` for all others. */
export function wellKnownLunNumber(field: LunField): number | null {
  if (field.lower !== 0 || (field.upper & 0xffff) !== 0) return null;
  return field.upper >>> 24 === 0xc1 ? (field.upper >>> 16) & 0xff : null;
}

/** `5`, `well-known 1`, or all eight bytes as `0x0105000200000000`. */
export function lunToText(field: LunField): string {
  const number = lunNumber(field);
  if (number !== null) return String(number);
  const wellKnown = wellKnownLunNumber(field);
  if (wellKnown !== null) return `well-known ${wellKnown}`;
  return `0x${lunFieldToHex(field)}`;
}

/** All eight bytes as 16 hex digits. */
export function lunFieldToHex(field: LunField): string {
  return hex32(field.upper) + hex32(field.lower);
}

/** The field of 16 hex digits. */
export function lunFieldOfHex(hex: string): LunField {
  invariant(/^[0-9a-f]{16}$/.test(hex), `LUN field ${hex}`);
  return { upper: Number.parseInt(hex.slice(0, 8), 16), lower: Number.parseInt(hex.slice(8), 16) };
}

export function lunEquals(left: LunField, right: LunField): boolean {
  return left.upper === right.upper && left.lower === right.lower;
}

type ReportedLuns = {
  /** In the order of the target, each once. */
  readonly luns: readonly LunField[];
  /** Bytes the whole answer has; more than arrived means: ask again with this allocation. */
  readonly neededBytes: number;
};

/**
 * The answer to REPORT LUNS (SPC-4): 0–3 LUN LIST LENGTH in bytes, 4–7 reserved, then eight
 * bytes each. A list cut off by the allocation length gives the LUNs that arrived whole.
 */
export function decodeReportLuns(data: Buffer): ReportedLuns {
  requireBytes(data, REPORT_LUNS_HEADER_BYTES, 'REPORT LUNS');
  const listBytes = data.readUInt32BE(0);
  if (listBytes % LUN_FIELD_BYTES !== 0) {
    throw new ScsiDataError(`LUN list of ${listBytes} bytes is not a multiple of 8`);
  }
  const end = Math.min(data.length, REPORT_LUNS_HEADER_BYTES + listBytes);
  const luns: LunField[] = [];
  const seen = new Set<string>();
  for (let at = REPORT_LUNS_HEADER_BYTES; at + LUN_FIELD_BYTES <= end; at += LUN_FIELD_BYTES) {
    const text = data.toString('latin1', at, at + LUN_FIELD_BYTES);
    if (seen.has(text)) continue;
    seen.add(text);
    luns.push({ upper: data.readUInt32BE(at), lower: data.readUInt32BE(at + 4) });
  }
  return { luns, neededBytes: REPORT_LUNS_HEADER_BYTES + listBytes };
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, '0');
}
