import { identityMismatch, identityNotRead } from '../bridge/disk-identity.js';
import type { SessionOptions } from '../config/contract.js';
import type { SessionIdentity } from '../iscsi/session/session-config.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { completedFacts } from '../scsi/completed-facts.js';
import { bootIdentity, newIdentity } from '../session/session-identity.js';
import { keptPaths } from './record-paths.js';
import type { ResolvedLogin } from './resolved-login.js';
import {
  keyText,
  RECORD_VERSION,
  type SessionKey,
  type SessionRecord,
  type SessionSubject,
} from './session-record.js';

/** What a login is for: at most one session of a daemon has its key. */
export function subjectOf(plan: ResolvedLogin): SessionSubject {
  const { targetName, sessionType, portal } = plan.request;
  const { host, port } = portal;
  return { initiatorName: plan.initiatorName, targetName, sessionType, portal: { host, port } };
}

type Beginning = Pick<SessionRecord, 'bootId' | 'persistent' | 'options'>;

/** The record of a session that begins now; `known` is that of the session before it. */
export function begunRecord(
  subject: SessionSubject,
  known: SessionRecord | null,
  how: Beginning,
): SessionRecord {
  const { disks = [], portalGroupTag } = leftBehind(known, how.bootId) ?? {};
  return {
    version: RECORD_VERSION,
    ...identityText(known === null ? firstIdentity(subject) : identityOf(known)),
    ...how,
    active: true,
    ...subject,
    disks,
    portalGroupTag,
    paths: keptPaths(known?.paths, { mayHaveGhosts: known?.bootId === how.bootId }),
  };
}

/** Of a session that nothing is written down of. */
function firstIdentity(key: SessionKey): SessionIdentity {
  return key.sessionType === 'boot' ? bootIdentity(keyText(key)) : newIdentity();
}

export function identityOf(record: SessionRecord): SessionIdentity {
  return { sessionId: record.sessionId, isid: Buffer.from(record.isid, 'hex') };
}

function identityText(identity: SessionIdentity): Pick<SessionRecord, 'sessionId' | 'isid'> {
  return { sessionId: identity.sessionId, isid: Buffer.from(identity.isid).toString('hex') };
}

/** The record with what the disk of a LUN is now; without a portal group that before is kept. */
export function withDisk(
  record: SessionRecord,
  disk: FoundDisk,
  portalGroupTag: number | undefined,
): SessionRecord {
  const others = record.disks.filter(({ lun }) => lun !== disk.lun);
  return {
    ...record,
    disks: [...others, disk],
    portalGroupTag: portalGroupTag ?? record.portalGroupTag,
  };
}

type Strangeness = { readonly lun: number; readonly why: string; readonly isOther: boolean };

/**
 * The first of `disks` that is another one than the record's of that LUN, or for which that cannot
 * be decided now (`isOther` is false then); null: none is.
 */
export function strangeDisk(
  record: SessionRecord,
  disks: readonly FoundDisk[],
  { allowUnidentified = false }: Pick<SessionOptions, 'allowUnidentified'>,
): Strangeness | null {
  const occasion = { mayBeExchanged: true, allowUnidentified };
  for (const { lun, facts } of disks) {
    const known = record.disks.find((disk) => disk.lun === lun)?.facts;
    if (known === undefined) continue;
    const unknown = identityNotRead(known, facts, occasion);
    if (unknown !== null) return { lun, why: unknown, isOther: false };
    const why = identityMismatch(known, completedFacts(facts, known), occasion);
    if (why !== null) return { lun, why, isOther: true };
  }
  return null;
}

/** The disks, with what could not be read of them now as the record has it. */
export function completedDisks(record: SessionRecord, disks: readonly FoundDisk[]): FoundDisk[] {
  return disks.map((disk) => {
    const known = record.disks.find(({ lun }) => lun === disk.lun)?.facts;
    return known === undefined ? disk : { ...disk, facts: completedFacts(disk.facts, known) };
  });
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
  const { sessionId, isid } = identityText(firstIdentity(record));
  const paths = keptPaths(record.paths, { mayHaveGhosts: how.hasGhosts });
  return withoutDisks({ ...record, sessionId, isid: how.hasGhosts ? record.isid : isid, paths });
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
  const { disks, portalGroupTag, handedOver, unflushedLuns, paths } = left;
  return { ...record, disks, portalGroupTag, handedOver, unflushedLuns, paths };
}
