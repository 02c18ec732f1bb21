import { formatPortal, type PortalAddress } from '../../iscsi/login/portal.js';
import { samePortal } from '../../iscsi/session/portal-list.js';
import type { SessionIdentity } from '../../iscsi/session/session-config.js';
import { bootIdentity } from '../session-identity.js';

/** Sessions of one target at most, over however many portals. */
export const PATHS_MAX = 64;

/** Where a path goes. */
export type PathPlace = {
  readonly portal: PortalAddress;
  /** Its number among the sessions to this portal: 0, 1, … */
  readonly number: number;
  /** It was not requested by name: a discovery has reported it. See `Path.isSpare`. */
  readonly isSpare: boolean;
  /** The other target that it goes to; absent: that of the first session. */
  readonly other?: OtherTarget;
};

/** A target of another name that has some of the same logical units. */
export type OtherTarget = {
  readonly targetName: string;
  readonly units: readonly OtherUnit[];
};

/** A logical unit and its address at the other target. */
export type OtherUnit = {
  /** LUN of the unit in the first session. */
  readonly lun: number;
  /** Number and field (16 hex digits) of its LUN at the other target. */
  readonly otherLun: number;
  readonly otherField: string;
};

export function isSamePlace(left: PathPlace, right: PathPlace): boolean {
  return (
    left.number === right.number &&
    samePortal(left.portal, right.portal) &&
    left.other?.targetName === right.other?.targetName
  );
}

/**
 * The places of all paths but the one that exists already, which is the first one to `current`:
 * one to each portal, then the second one to each, and so on.
 */
export function otherPlaces(
  { all, current }: { readonly all: readonly PortalAddress[]; readonly current: PortalAddress },
  {
    sessionsPerPortal,
    spares,
  }: { readonly sessionsPerPortal: number; readonly spares: readonly PortalAddress[] },
): PathPlace[] {
  const places: PathPlace[] = [];
  for (let number = 0; number < sessionsPerPortal; number += 1) {
    for (const portal of all) {
      const isSpare = spares.some((spare) => samePortal(spare, portal));
      // No option requests more than one session to it.
      const isOne = number === 0 ? portal !== current : !isSpare;
      if (isOne) places.push({ portal, number, isSpare });
    }
  }
  return places.slice(0, PATHS_MAX - 1);
}

/**
 * The identity of the session of a path: it follows from that of the first session and from the
 * place, so that a process that takes over has the same one, and a login ends what was left there.
 */
export function identityOfPath(
  leaderId: string,
  { portal, number, other }: Omit<PathPlace, 'isSpare'>,
): SessionIdentity {
  const suffix = number === 0 ? '' : ` ${number}`;
  const target = other === undefined ? '' : ` ${other.targetName}`;
  return bootIdentity(`${leaderId} ${formatPortal(portal)}${suffix}${target}`);
}
