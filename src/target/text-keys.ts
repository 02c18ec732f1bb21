import { ProtocolError } from '../base/errors.js';

/** Keys in the order they were sent; a key may stand twice only in a SendTargets answer. */
export type KeyPair = readonly [key: string, value: string];

/** Pairs of one text exchange at most; more is not a negotiation. */
const PAIRS_MAX = 512;

/** RFC 7143 §6.1 (Text Format): `key=value` ended by a zero byte. */
export function parseKeys(bytes: Buffer): KeyPair[] {
  const pairs: KeyPair[] = [];
  const text = bytes.toString('utf8');
  for (const item of text.split('\0')) {
    if (item === '') continue;
    const equals = item.indexOf('=');
    if (equals <= 0 || equals > 63) {
      throw new ProtocolError('6.1', 'text item without a key of 1 to 63 characters');
    }
    if (pairs.length === PAIRS_MAX) throw new ProtocolError('6.1', `over ${PAIRS_MAX} keys`);
    pairs.push([item.slice(0, equals), item.slice(equals + 1)]);
  }
  return pairs;
}

export function encodeKeys(pairs: readonly KeyPair[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8');
}

/** `bytes` in pieces of at most `pieceBytes`; one empty piece when there is nothing to say. */
export function cutPieces(bytes: Buffer, pieceBytes: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    pieces.push(bytes.subarray(at, at + pieceBytes));
  }
  return pieces.length === 0 ? [Buffer.alloc(0)] : pieces;
}
