import type { Clock } from '../../base/clock.js';
import { type AccessState, Path } from '../../bridge/paths/path.js';
import type { PathsPort } from '../../bridge/paths/paths-port.js';
import type { OwnPort } from '../../lun/port-groups.js';
import type { Attention } from '../../scsi/sense-table.js';
import { PathFailures } from './path-failures.js';
import type { PathMember } from './path-member.js';

/** A LOGICAL UNIT RESET of ours that the unit may report over a path, once. */
export type OwnReset = { isMet: boolean };

/** One path of a unit with what is known of it besides. */
export type UnitPath = {
  readonly member: PathMember;
  readonly path: Path;
  readonly failures: PathFailures;
  /** Ends the check that runs, and all that would follow it. */
  stopCheck: () => void;
  /** Its port, as the unit names it; null: it has not told yet. */
  ownPort: OwnPort | null;
  /** Target port group of its port; null: the unit has not told of any. */
  group: number | null;
  /** State of the group as last reported, over whichever path. */
  reported: AccessState | null;
  /** Why it is in its state. */
  reason: string;
  /** What a new session has met that may be about the time before it. */
  past: Attention | null;
  /** The target had no such unit over it since it was last used. */
  wasGone: boolean;
  /** Those that the unit may yet report over it. */
  readonly ownResets: Set<OwnReset>;
};

/** A path over a session that is not known to be there. */
export function newUnitPath(
  member: PathMember,
  { lun, clock }: { readonly lun: number; readonly clock: Clock },
): UnitPath {
  const { client, name, isSpare } = member;
  const field = client.lunFields.fieldOf(lun);
  const path = new Path({ port: client.initiator, lun: field, name, isSpare });
  const failures = new PathFailures(clock, (isSuspect) => {
    path.isSuspect = isSuspect;
  });
  return {
    member,
    path,
    failures,
    stopCheck: () => undefined,
    ownPort: null,
    group: null,
    reported: null,
    reason: 'its session is not logged in',
    past: null,
    wasGone: false,
    ownResets: new Set(),
  };
}

/**
 * The unit reports a LOGICAL UNIT RESET of ours, which ends tasks and costs no cache; a report
 * besides it counts. LIO reports it to the nexus that has asked for it, too.
 */
export function meetsOwnReset({ ownResets }: UnitPath, attention: Attention): boolean {
  if (attention !== 'reset') return false;
  for (const reset of ownResets) {
    reset.isMet = true;
    ownResets.delete(reset);
    return true;
  }
  return false;
}

/**
 * The commands of the unit went over the session of this path only until now. Those under way are
 * the port's from now on; if the session is gone, the target may still do what was sent over it.
 */
export function adoptCommands({ member, path }: UnitPath, port: PathsPort): void {
  path.nexus = member.nexus;
  if (!member.isLoggedIn) port.fence(path);
  else member.client.session.flow.forEachOf(path.lun, (command) => port.adopt(command, path));
}

/** Attentions that each nexus gets of one event: a new session meets them long after it. */
export const OF_THE_PAST: ReadonlySet<Attention> = new Set<Attention>([
  'powerOn',
  'reset',
  'nexusLost',
]);
/** Attentions after which another disk may be there, be it because it was not watched. */
export const MAY_BE_OTHER: ReadonlySet<Attention> = new Set<Attention>([
  'inquiryChanged',
  'lunsChanged',
  'lunGone',
  'mediumChanged',
  ...OF_THE_PAST,
]);
