import type { SessionIdentity } from '../iscsi/session/session-config.js';
import { bootIdentity, newIdentity } from '../session/session-identity.js';
import type { LoginPlan } from './login-plan.js';
import { keyText, type SessionKey, type SessionRecord } from './session-records.js';

/** What a login is for: at most one session of a daemon has it. */
export function keyOf(plan: LoginPlan): SessionKey {
  const { targetName, sessionType } = plan.request;
  return { initiatorName: plan.initiatorName, targetName, sessionType };
}

/** Of a session that nothing is written down of. */
export function firstIdentity(plan: LoginPlan): SessionIdentity {
  const isBoot = plan.request.sessionType === 'boot';
  return isBoot ? bootIdentity(keyText(keyOf(plan))) : newIdentity();
}

export function identityOf(record: SessionRecord): SessionIdentity {
  return { sessionId: record.sessionId, isid: Buffer.from(record.isid, 'hex') };
}

export function identityText(identity: SessionIdentity): Pick<SessionRecord, 'sessionId' | 'isid'> {
  return { sessionId: identity.sessionId, isid: Buffer.from(identity.isid).toString('hex') };
}

/** The record of a session that is to be logged in again as it was. */
export function withoutDisks(record: SessionRecord): SessionRecord {
  return { ...record, active: false, disks: [] };
}

/**
 * The record after a logout: the next session is another one. While the target has not heard of the
 * logout, it takes the place of the old one there, so that the target ends what it still does for
 * it (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)).
 */
export function loggedOut(
  record: SessionRecord,
  how: { readonly hasGhosts: boolean },
): SessionRecord {
  const { sessionId, isid } = identityText(newIdentity());
  return withoutDisks({ ...record, sessionId, isid: how.hasGhosts ? record.isid : isid });
}

/** The process before has left nothing acknowledged that is not on the disk of the LUN. */
export function isHandedOver(record: SessionRecord, lun: number): boolean {
  return record.handedOver === true && record.unflushedLuns?.includes(lun) !== true;
}

/**
 * The record, when a daemon before this one had its session until it was killed or left it, in this
 * boot of the machine: its devices, clients and writes are then this one's. Else null.
 */
export function leftBehind(record: SessionRecord | null, bootId: string): SessionRecord | null {
  return record?.active === true && record.bootId === bootId ? record : null;
}

/** The record of a session that this daemon could not use: it is left as it was found. */
export function stillLeft(record: SessionRecord, left: SessionRecord): SessionRecord {
  const { disks, portalGroupTag, handedOver, unflushedLuns } = left;
  return { ...record, disks, portalGroupTag, handedOver, unflushedLuns };
}
