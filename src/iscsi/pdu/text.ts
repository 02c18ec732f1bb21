import { invariant } from '../../base/errors.js';
import { brokenRule } from '../quirks/quirks.js';

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

/** The pairs of one complete text in their order. Throws ProtocolError for anything malformed. */
export function decodeText(text: Buffer): TextPair[] {
  if (text.length === 0) return [];
  if (text[text.length - 1] !== NUL) {
    throw brokenRule(
      'text-unterminated',
      'the last key=value pair of a text has no zero byte after it',
    );
  }
  const pairs: TextPair[] = [];
  for (let start = 0; start < text.length; ) {
    const end = text.indexOf(NUL, start);
    // Some targets count padding into DataSegmentLength; an empty string is no pair at all.
    if (end > start) pairs.push(decodePair(text.subarray(start, end)));
    start = end + 1;
  }
  return pairs;
}

function decodePair(bytes: Buffer): TextPair {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw brokenRule('text-utf8', 'a key=value pair is not UTF-8', { cause });
  }
  const equals = text.indexOf('=');
  if (equals < 0) throw brokenRule('text-equals', `no "=" in the text ${quoted(text)}`);
  const key = text.slice(0, equals);
  if (key.length > KEY_CHARACTERS_MAX) {
    throw brokenRule(
      'text-key-size',
      `key of ${key.length} characters, over ${KEY_CHARACTERS_MAX}`,
    );
  }
  if (!KEY_PATTERN.test(key)) {
    throw brokenRule(
      'text-key-characters',
      `key ${quoted(key)} has a character that keys cannot have`,
    );
  }
  return [key, text.slice(equals + 1)];
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
