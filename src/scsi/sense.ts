import { uint64OrNull } from './response-data.js';

/** Names of the sense keys by number (SPC-4 §4.5). */
export const SENSE_KEY_NAMES = [
  'NO SENSE',
  'RECOVERED ERROR',
  'NOT READY',
  'MEDIUM ERROR',
  'HARDWARE ERROR',
  'ILLEGAL REQUEST',
  'UNIT ATTENTION',
  'DATA PROTECT',
  'BLANK CHECK',
  'VENDOR SPECIFIC',
  'COPY ABORTED',
  'ABORTED COMMAND',
  'RESERVED',
  'VOLUME OVERFLOW',
  'MISCOMPARE',
  'COMPLETED',
] as const;

/** Sense keys this product tells apart. */
export const SenseKey = {
  noSense: 0x0,
  recoveredError: 0x1,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  abortedCommand: 0xb,
  completed: 0xf,
} as const;

/** Where an ILLEGAL REQUEST points: the byte, and the bit where one is named. */
type FieldPointer = {
  readonly in: 'cdb' | 'parameters';
  readonly byte: number;
  readonly bit: number | null;
};

export type SenseData = {
  /** `none`: no bytes, or a response code that is not 70h–73h. */
  readonly format: 'fixed' | 'descriptor' | 'none';
  /** The error belongs to an earlier command; the one that carries it was not performed. */
  readonly deferred: boolean;
  readonly senseKey: number;
  readonly asc: number;
  readonly ascq: number;
  /** INFORMATION where it is valid, in most errors the block; `null` too when over 2^53-1. */
  readonly information: number | null;
  readonly fieldPointer: FieldPointer | null;
  /** Progress of what keeps the unit from being ready, 0 … 1. */
  readonly progress: number | null;
};

const NO_SENSE_DATA: SenseData = {
  format: 'none',
  deferred: false,
  senseKey: 0,
  asc: 0,
  ascq: 0,
  information: null,
  fieldPointer: null,
  progress: null,
};

/**
 * Sense data of any length and content (SPC-4 §4.5); never throws, bytes that are missing count
 * as zero. `bytes` may be longer than the sense data; what follows is ignored.
 */
export function parseSense(bytes: Buffer): SenseData {
  switch ((bytes[0] ?? 0) & 0x7f) {
    case 0x70:
      return parseFixed(bytes, false);
    case 0x71:
      return parseFixed(bytes, true);
    case 0x72:
      return parseDescriptors(bytes, false);
    case 0x73:
      return parseDescriptors(bytes, true);
    default:
      return NO_SENSE_DATA;
  }
}

/** Sense data that have these codes and nothing else. */
export function senseOfCodes(codes: Pick<SenseData, 'senseKey' | 'asc' | 'ascq'>): SenseData {
  const { senseKey, asc, ascq } = codes;
  return { ...NO_SENSE_DATA, format: 'fixed', senseKey, asc, ascq };
}

/** Does `sense` say that the device does not know the command, or not in this form? */
export function isUnsupported(sense: SenseData): boolean {
  if (sense.senseKey !== SenseKey.illegalRequest || sense.deferred) return false;
  return sense.asc === 0x20 || sense.asc === 0x24 || sense.asc === 0x26;
}

/**
 * Fixed format (SPC-4 §4.5.3): 0 VALID and response code, 2 sense key (bits 3–0),
 * 3–6 INFORMATION, 7 additional length, 12 ASC, 13 ASCQ, 15–17 sense key specific.
 */
function parseFixed(bytes: Buffer, deferred: boolean): SenseData {
  const end = Math.min(bytes.length, 8 + (bytes[7] ?? 0));
  const at = (index: number): number => (index < end ? (bytes[index] ?? 0) : 0);
  const senseKey = at(2) & 0x0f;
  const valid = (at(0) & 0x80) !== 0 && end >= 7;
  const specific = end >= 18 ? bytes.subarray(15, 18) : null;
  return {
    format: 'fixed',
    deferred,
    senseKey,
    asc: at(12),
    ascq: at(13),
    information: valid ? bytes.readUInt32BE(3) : null,
    fieldPointer: fieldPointer(senseKey, specific),
    progress: progress(senseKey, specific),
  };
}

/**
 * Descriptor format (SPC-4 §4.5.2): 1 sense key, 2 ASC, 3 ASCQ, 7 additional length, then
 * descriptors of type, additional length, content: 00h INFORMATION, 02h sense key specific.
 */
function parseDescriptors(bytes: Buffer, deferred: boolean): SenseData {
  const senseKey = (bytes[1] ?? 0) & 0x0f;
  const end = Math.min(bytes.length, 8 + (bytes[7] ?? 0));
  let information: number | null = null;
  let specific: Buffer | null = null;
  for (let at = 8; at + 2 <= end; at += 2 + (bytes[at + 1] ?? 0)) {
    const type = bytes[at] ?? 0;
    const contentBytes = bytes[at + 1] ?? 0;
    if (at + 2 + contentBytes > end) break;
    if (type === 0x00 && contentBytes >= 10 && ((bytes[at + 2] ?? 0) & 0x80) !== 0) {
      information = uint64OrNull(bytes, at + 4);
    }
    if (type === 0x02 && contentBytes >= 6) specific = bytes.subarray(at + 4, at + 7);
  }
  return {
    format: 'descriptor',
    deferred,
    senseKey,
    asc: bytes[2] ?? 0,
    ascq: bytes[3] ?? 0,
    information,
    fieldPointer: fieldPointer(senseKey, specific),
    progress: progress(senseKey, specific),
  };
}

/** Bit 7 of the first sense key specific byte is SKSV: the three bytes mean something. */
function isValid(specific: Buffer | null): specific is Buffer {
  return specific !== null && ((specific[0] ?? 0) & 0x80) !== 0;
}

/** SPC-4 §4.5.2: C/D in bit 6, BPV in bit 3, BIT POINTER in bits 2–0, then two bytes. */
function fieldPointer(senseKey: number, specific: Buffer | null): FieldPointer | null {
  if (senseKey !== SenseKey.illegalRequest || !isValid(specific)) return null;
  const flags = specific[0] ?? 0;
  return {
    in: (flags & 0x40) !== 0 ? 'cdb' : 'parameters',
    byte: specific.readUInt16BE(1),
    bit: (flags & 0x08) !== 0 ? flags & 0x07 : null,
  };
}

/** SPC-4 §4.5.2: PROGRESS INDICATION in parts of 65536. */
function progress(senseKey: number, specific: Buffer | null): number | null {
  const tells = senseKey === SenseKey.noSense || senseKey === SenseKey.notReady;
  return tells && isValid(specific) ? specific.readUInt16BE(1) / 65536 : null;
}
