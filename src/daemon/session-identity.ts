import { randomBytes } from 'node:crypto';
import type { SessionIdentity } from '../iscsi/session-config.js';

/**
 * A new identity: the UniqueSessionId and an ISID of the random format, so that two initiators of
 * one name hardly ever meet (RFC 7143 §11.12.5 (ISID): type 10b, 24 random bits, a qualifier).
 */
export function newIdentity(): SessionIdentity {
  const random = randomBytes(8);
  const isid = Buffer.from([0x80, 0, 0, 0, 0, 0]);
  random.copy(isid, 1, 0, 5);
  return { sessionId: random.toString('hex'), isid };
}
