import { formatPortal, type PortalAddress } from '../../iscsi/login/portal.js';
import type { SessionIdentity } from '../../iscsi/session/session-config.js';
import { bootIdentity } from '../session-identity.js';

/** Sessions of one target at most, over however many portals. */
const PATHS_MAX = 64;

/** Where a path goes. */
export type PathPlace = {
  readonly portal: PortalAddress;
  /** Its number among the sessions to this portal: 0, 1, … */
  readonly number: number;
};

/**
 * The places of all paths but the one that is there already, which is the first one to `current`:
 * one to each portal, then the second one to each, and so on.
 */
export function otherPlaces(
  { all, current }: { readonly all: readonly PortalAddress[]; readonly current: PortalAddress },
  sessionsPerPortal: number,
): PathPlace[] {
  const places: PathPlace[] = [];
  for (let number = 0; number < sessionsPerPortal; number += 1) {
    for (const portal of all) {
      if (number > 0 || portal !== current) places.push({ portal, number });
    }
  }
  return places.slice(0, PATHS_MAX - 1);
}

/**
 * The identity of the session of a path: it follows from that of the first session and from the
 * place, so that a process that takes over has the same one, and a login ends what was left there.
 */
export function identityOfPath(leaderId: string, { portal, number }: PathPlace): SessionIdentity {
  const suffix = number === 0 ? '' : ` ${number}`;
  return bootIdentity(`${leaderId} ${formatPortal(portal)}${suffix}`);
}
