import { invariant } from '../../base/errors.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

/**
 * The key=value text of login and text PDUs: RFC 7143 §6.1 (Text Format). Each pair is
 * `key=value` in UTF-8 and ends with one zero byte; a run of PDUs with the C bit makes one text.
 */

export type TextPair = readonly [key: string, value: string];

/** RFC 7143 §6.3 (Login Phase): the default MaxRecvDataSegmentLength is used during login. */
export const LOGIN_SEGMENT_BYTES_MAX = 8192;

/** RFC 7143 §6.1 (Text Format): with long authentication items 64 kilobytes must be received. */
export const LOGIN_TEXT_BYTES_MAX = 65536;

/** RFC 7143 §6.1 (Text Format): a standard-label has at most 63 characters. */
const KEY_CHARACTERS_MAX = 63;

/**
 * Characters of a standard-label, and `#` of X#NodeArchitecture. A capital first letter is not
 * asked for, because iSCSIProtocolLevel has none.
 */
const KEY_PATTERN = /^[A-Za-z][A-Za-z0-9.\-+@_#]*$/;

/** RFC 7143 §6.2 (Text Mode Negotiation): answers that must not be proposed. */
export const RESERVED_ANSWERS: ReadonlySet<string> = new Set([
  'Reject',
  'Irrelevant',
  'NotUnderstood',
]);

const NUL = 0;
const EQUALS = 0x3d;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes of `pairs`, each with its zero byte. */
export function encodeText(pairs: readonly TextPair[]): Buffer {
  for (const [key, value] of pairs) {
    invariant(!`${key}${value}`.includes('\0'), `zero byte in the text of key ${key}`);
  }
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8');
}

/**
 * `text` cut into data segments of at most `segmentBytesMax` bytes; always at least one segment.
 * All but the last are to be sent with the C bit. The parts share the memory of `text`.
 */
export function splitText(text: Buffer, segmentBytesMax: number): Buffer[] {
  invariant(segmentBytesMax > 0, 'a segment of no bytes');
  const parts: Buffer[] = [];
  for (let start = 0; start < text.length; start += segmentBytesMax) {
    parts.push(text.subarray(start, start + segmentBytesMax));
  }
  return parts.length > 0 ? parts : [text];
}

/** The pairs of one complete text in their order; what is no pair is left out. */
export function decodeText(text: Buffer, quirks: QuirkLog): TextPair[] {
  const pairs: TextPair[] = [];
  for (let start = 0; start < text.length; ) {
    const nul = text.indexOf(NUL, start);
    const end = nul < 0 ? text.length : nul;
    // Linux and illumos append the zero byte that some targets forget.
    if (nul < 0) quirks.met('text-unterminated', 'the last pair of a text has no zero byte');
    // Some targets count padding into DataSegmentLength; an empty string is no pair at all.
    const pair = end > start ? decodePair(text.subarray(start, end), quirks) : null;
    if (pair !== null) pairs.push(pair);
    start = end + 1;
  }
  return pairs;
}

/** Null for what cannot be a pair. */
function decodePair(bytes: Buffer, quirks: QuirkLog): TextPair | null {
  const equals = bytes.indexOf(EQUALS);
  if (equals < 0) {
    const item = quoted(bytes.toString('latin1'));
    quirks.met('text-equals', `a text has the item ${item}, which has no "=" and is left out`);
    return null;
  }
  const key = bytes.toString('latin1', 0, equals);
  if (key.length > KEY_CHARACTERS_MAX || !KEY_PATTERN.test(key)) {
    quirks.met('text-key', `a text has a key ${quoted(key)}, which is left out`);
    return null;
  }
  const value = bytes.subarray(equals + 1);
  try {
    return [key, UTF8.decode(value)];
  } catch {
    quirks.met('text-utf8', `the value of ${key} is not UTF-8 and is read as Latin-1`);
    return [key, value.toString('latin1')];
  }
}

/** Text of the other side for a message: quoted, no control characters, at most 64 characters. */
export function quoted(text: string): string {
  const short = text.length > 64 ? `${text.slice(0, 64)}…` : text;
  return `"${printable(short)}"`;
}

/** `text` with each control or direction-changing character replaced by U+FFFD. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd');
}

/** Collects the data segments of one text that comes in several PDUs. */
export class TextCollector {
  readonly #bytesMax: number;
  #parts: Buffer[] = [];
  #byteLength = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Takes a copy of `part`, for the caller's buffer may be used again. */
  add(part: Buffer): void {
    this.#byteLength += part.length;
    if (this.#byteLength > this.#bytesMax) {
      throw brokenRule('text-size', `a text of more than ${this.#bytesMax} bytes`);
    }
    if (part.length > 0) this.#parts.push(Buffer.from(part));
  }

  /** All bytes collected; the collector is empty afterwards. */
  take(): Buffer {
    const text = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#byteLength = 0;
    return text;
  }
}

/**
 * numerical-value: decimal without leading zeros, or hexadecimal, below 2^64. Null when it is
 * none. Above 2^53 the number is rounded; no key of RFC 7143 reaches that far.
 */
export function parseNumericalValue(text: string): number | null {
  const digits = /^(?:(0|[1-9][0-9]{0,19})|0[xX]0*([0-9a-fA-F]{1,16}))$/.exec(text);
  if (!digits) return null;
  const value = BigInt(digits[1] ?? `0x${digits[2]}`);
  return value < 1n << 64n ? Number(value) : null;
}

/** boolean-value: `Yes` or `No`, null for anything else. */
export function parseBooleanValue(text: string): boolean | null {
  if (text === 'Yes') return true;
  return text === 'No' ? false : null;
}

/** list-of-values: text-values between commas, in order; null when one is empty or malformed. */
export function parseListOfValues(text: string): string[] | null {
  const values = text.split(',');
  const isTextValue = /^[A-Za-z0-9.\-+@_/[\]:]+$/;
  return values.every((value) => isTextValue.test(value)) ? values : null;
}

/**
 * large-binary-value: hex-constant or base64-constant of 1 … `bytesMax` bytes, null for anything
 * else. An odd count of hex digits has a leading half byte: n digits are (n + 1) / 2 bytes.
 */
export function parseBinaryValue(text: string, bytesMax: number): Buffer | null {
  const body = text.slice(2);
  let bytes: Buffer;
  if (/^0[xX][0-9a-fA-F]+$/.test(text)) {
    bytes = Buffer.from(body.length % 2 === 0 ? body : `0${body}`, 'hex');
  } else if (/^0[bB][A-Za-z0-9+/]+={0,2}$/.test(text) && body.length % 4 === 0) {
    bytes = Buffer.from(body, 'base64');
  } else {
    return null;
  }
  return bytes.length > 0 && bytes.length <= bytesMax ? bytes : null;
}
