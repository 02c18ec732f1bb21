import { invariant } from '../../base/errors.js';
import type { PortalAddress } from '../login/portal.js';

/** Redirects followed in one round of attempts, so that two targets cannot play ping-pong. */
const REDIRECTS_MAX = 8;
/** Portals kept of one target; a target that redirects for ever must not fill memory. */
const PORTALS_MAX = 64;

/**
 * All known portals of one target, tried in turn. A round begins at the portal that worked last
 * and ends when each has been tried once.
 */
export class PortalList {
  readonly #portals: PortalAddress[];
  #at = 0;
  #triedInRound = 0;
  #redirects = 0;
  #detour: PortalAddress | null = null;

  constructor(portals: readonly PortalAddress[]) {
    invariant(portals.length > 0, 'a session without a portal');
    this.#portals = portals.slice(0, PORTALS_MAX);
  }

  /** The portal to try now. */
  get current(): PortalAddress {
    const portal = this.#detour ?? this.#portals[this.#at];
    invariant(portal, 'the portal list is empty');
    return portal;
  }

  /** No portal of this round has been tried yet. */
  get isAtRoundStart(): boolean {
    return this.#triedInRound === 0;
  }

  /** The portal to try now is one a redirection named. */
  get isRedirected(): boolean {
    return this.#redirects > 0;
  }

  get all(): readonly PortalAddress[] {
    return this.#portals;
  }

  /** An attempt failed: true when another portal of this round is next, false at its end. */
  attemptFailed(): boolean {
    this.#detour = null;
    this.#at = (this.#at + 1) % this.#portals.length;
    this.#triedInRound += 1;
    if (this.#triedInRound < this.#portals.length) return true;
    this.beginRound();
    return false;
  }

  /** Other portals belong to other sessions from now on. */
  keepCurrent(): void {
    const { current } = this;
    this.#portals.splice(0, this.#portals.length, current);
    this.#at = 0;
    this.beginRound();
  }

  /** The next login goes to the next portal. */
  moveOn(): void {
    this.#detour = null;
    this.#at = (this.#at + 1) % this.#portals.length;
  }

  /** The session lost its connection: a temporary redirection was for that one only. */
  outageBegan(): void {
    this.#detour = null;
    this.beginRound();
  }

  /** A login succeeded, or a new round is due. */
  beginRound(): void {
    this.#triedInRound = 0;
    this.#redirects = 0;
  }

  /**
   * The target sent us elsewhere (RFC 7143 §11.13.5 (Status-Class and Status-Detail), 0101 for
   * now, 0102 for good). False when the cap is reached.
   */
  redirected(address: PortalAddress, permanent: boolean): boolean {
    this.#redirects += 1;
    if (this.#redirects > REDIRECTS_MAX) return false;
    if (permanent) {
      this.#detour = null;
      this.add(address);
      const known = this.#portals.findIndex((portal) => samePortal(portal, address));
      if (known >= 0) this.#at = known;
    } else {
      this.#detour = address;
    }
    return true;
  }

  /** Makes one more portal known. */
  add(address: PortalAddress): void {
    if (this.#portals.some((portal) => samePortal(portal, address))) return;
    if (this.#portals.length < PORTALS_MAX) this.#portals.push(address);
  }
}

export function samePortal(left: PortalAddress, right: PortalAddress): boolean {
  return left.host === right.host && left.port === right.port;
}
