import { createHash, randomBytes } from 'node:crypto';
import type { SessionIdentity } from '../iscsi/session/session-config.js';

/**
 * A new identity: the UniqueSessionId and an ISID of the random format, so that two initiators of
 * one name hardly ever meet (RFC 7143 §11.12.5 (ISID): type 10b, 24 random bits, a qualifier).
 */
export function newIdentity(): SessionIdentity {
  return identityOf(randomBytes(8));
}

/**
 * The identity of a boot session, which is that of the boots before: so the target ends what a
 * machine that lost its power has left (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and
 * Timeout)). `key` tells initiator, target and type.
 */
export function bootIdentity(key: string): SessionIdentity {
  return identityOf(createHash('sha256').update(key).digest().subarray(0, 8));
}

function identityOf(random: Buffer): SessionIdentity {
  const isid = Buffer.from([0x80, 0, 0, 0, 0, 0]);
  random.copy(isid, 1, 0, 5);
  return { sessionId: random.toString('hex'), isid };
}
