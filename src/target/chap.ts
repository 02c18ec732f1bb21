import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * CHAP_A numbers of RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)) and of
 * the IANA registry "PPP Authentication Algorithms".
 */
const HASHES = { 5: 'md5', 6: 'sha1', 7: 'sha256', 8: 'sha3-256' } as const;
export type ChapHash = keyof typeof HASHES;
export const CHAP_HASHES: readonly ChapHash[] = [5, 6, 7, 8];

/** RFC 7143 §6.1 (Text Format): a binary value is at most 1024 bytes here. */
const BINARY_BYTES_MAX = 1024;

/** hash(identifier, secret, challenge) (RFC 1994 §4.1 (Challenge and Response)). */
export function targetChapResponse(
  hash: ChapHash,
  exchange: { readonly identifier: number; readonly secret: string; readonly challenge: Buffer },
): Buffer {
  return createHash(HASHES[hash])
    .update(Buffer.from([exchange.identifier]))
    .update(exchange.secret, 'utf8')
    .update(exchange.challenge)
    .digest();
}

/** First algorithm of the initiator's list that the target accepts. */
export function chooseHash(list: string, accepted: readonly ChapHash[]): ChapHash | null {
  for (const item of list.split(',')) {
    const found = accepted.find((hash) => String(hash) === item);
    if (found !== undefined) return found;
  }
  return null;
}

/** Hexadecimal (`0x…`) or base64 (`0b…`) binary value; null when it is neither. */
export function parseBinary(value: string): Buffer | null {
  const body = value.slice(2);
  if (body === '' || body.length > BINARY_BYTES_MAX * 2) return null;
  if (/^0x/i.test(value) && /^[0-9a-fA-F]+$/.test(body)) {
    return Buffer.from(body.length % 2 === 0 ? body : `0${body}`, 'hex');
  }
  if (/^0b/i.test(value) && /^[A-Za-z0-9+/]+={0,2}$/.test(body)) {
    const bytes = Buffer.from(body, 'base64');
    return bytes.length <= BINARY_BYTES_MAX ? bytes : null;
  }
  return null;
}

export function sameBytes(left: Buffer, right: Buffer): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}
