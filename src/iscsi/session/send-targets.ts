import { formatPortal, type PortalAddress, readPortal } from '../login/portal.js';
import { iscsiNameFault } from '../login/target-name.js';
import { quoted, RESERVED_ANSWERS, type TextPair } from '../pdu/text.js';
import { brokenRule } from '../quirks/quirks.js';

/** A target and where it listens; `portals` has at least one. */
export type DiscoveredTarget = { readonly name: string; readonly portals: PortalAddress[] };

/** RFC 7143 Appendix C (SendTargets Operation): all targets that this initiator may see. */
export const SEND_TARGETS_ALL: readonly TextPair[] = [['SendTargets', 'All']];

/**
 * The target records of a SendTargets answer, in its order; records of one name are joined. A
 * record that cannot be used is named in a warning, so that it does not hide the others.
 * `via` is the portal that was asked: it stands for a target that gives no address, and for the
 * host of an address that is a wildcard.
 */
export function parseSendTargets(
  pairs: readonly TextPair[],
  via: PortalAddress,
): { readonly targets: DiscoveredTarget[]; readonly warnings: string[] } {
  const answer = new SendTargetsAnswer(via);
  for (const [key, value] of pairs) {
    if (key === 'TargetName') answer.name(value);
    else if (key === 'TargetAddress') answer.address(value);
    else answer.other(key, value);
  }
  return { targets: answer.targets(), warnings: answer.warnings };
}

class SendTargetsAnswer {
  readonly warnings: string[] = [];
  readonly #via: PortalAddress;
  readonly #found = new Map<string, PortalAddress[]>();
  readonly #withoutUsableAddress = new Set<string>();
  #current: string | null = null;

  constructor(via: PortalAddress) {
    this.#via = via;
  }

  name(name: string): void {
    this.#current = name;
    const fault = iscsiNameFault(name);
    if (fault !== null) {
      this.#warn(`the target name ${quoted(name)} is left out, as it cannot be used: ${fault}`);
    } else if (!this.#found.has(name)) {
      this.#found.set(name, []);
    }
  }

  address(text: string): void {
    const name = this.#current;
    if (name === null) {
      this.#warn(`the address ${quoted(text)} stands before any target name and is left out`);
      return;
    }
    const listed = readListed(text);
    if ('fault' in listed) {
      this.#withoutUsableAddress.add(name);
      this.#warn(`the address ${quoted(text)} of ${quoted(name)} is left out: ${listed.fault}`);
      return;
    }
    if (listed.oddity !== null) {
      const shown = formatPortal(listed.portal);
      this.#warn(`the address ${quoted(text)} is taken as ${shown}: ${listed.oddity}`);
    }
    addPortal(this.#found.get(name), reachable(listed.portal, this.#via));
  }

  /** RFC 7143 Appendix C (SendTargets Operation): only names and addresses are permitted. */
  other(key: string, value: string): void {
    if (key === 'SendTargets' && RESERVED_ANSWERS.has(value)) {
      throw brokenRule('discovery-refused', `the target answers SendTargets with ${value}`);
    }
    this.#warn(`the key ${quoted(key)} has no place in a list of targets and is left out`);
  }

  targets(): DiscoveredTarget[] {
    const targets: DiscoveredTarget[] = [];
    const { host, port } = this.#via;
    for (const [name, portals] of this.#found) {
      if (portals.length > 0) targets.push({ name, portals });
      else if (this.#withoutUsableAddress.has(name)) this.#warn(`${name} has no usable address`);
      else targets.push({ name, portals: [{ host, port }] });
    }
    return targets;
  }

  #warn(message: string): void {
    if (this.warnings.length < WARNINGS_MAX) this.warnings.push(message);
    else if (this.warnings.length === WARNINGS_MAX) this.warnings.push('more was left out');
  }
}

/** What can be looked at; the rest would only hide it. */
const WARNINGS_MAX = 100;

type Listed =
  | { readonly portal: PortalAddress; readonly oddity: string | null }
  | { readonly fault: string };

/**
 * An address as targets give it. The portal group tag is only needed to compare groups, and the
 * login tells it: one that is no tag (-1 of Jiva, 01, 65536) costs no address.
 */
function readListed(text: string): Listed {
  const portal = readPortal(text);
  if (!('fault' in portal)) return { portal, oddity: null };
  const [place = '', ...tags] = text.split(',');
  const withoutTag = readPortal(withBrackets(place));
  if ('fault' in withoutTag) return portal;
  const tag = tags.join(',');
  const isTag = tags.length === 0 || !('fault' in readPortal(`192.0.2.1,${tag}`));
  const oddity = isTag
    ? 'an IPv6 address with a port needs brackets'
    : `${quoted(tag)} is no portal group tag`;
  const portalGroupTag = isTag && tags.length > 0 ? { portalGroupTag: Number(tag) } : {};
  return { portal: { ...withoutTag, ...portalGroupTag }, oddity };
}

/** Eight groups of an IPv6 address without brackets, and a ninth that can only be the port. */
function withBrackets(place: string): string {
  const groups = place.split(':');
  if (groups.length !== 9 || groups.includes('')) return place;
  return `[${groups.slice(0, 8).join(':')}]:${groups[8]}`;
}

function addPortal(portals: PortalAddress[] | undefined, portal: PortalAddress): void {
  if (!portals) return;
  const text = formatPortal(portal);
  if (!portals.some((known) => formatPortal(known) === text)) portals.push(portal);
}

/** Targets that listen on all addresses may say so instead of naming one. */
function reachable(portal: PortalAddress, via: PortalAddress): PortalAddress {
  const isWildcard = portal.host === '0.0.0.0' || /^[0:]+$/.test(portal.host);
  return isWildcard ? { ...portal, host: via.host } : portal;
}
