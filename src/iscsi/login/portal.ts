import { parseNumericalValue, quoted } from '../pdu/text.js';

/**
 * Where a target listens: `host[:port][,tag]` of RFC 7143 §13.8 (TargetAddress). `host` is a DNS
 * name, an IPv4 address, or an IPv6 address without its brackets; `port` is 1 … 65535.
 */
export type PortalAddress = {
  readonly host: string;
  readonly port: number;
  /** 0 … 65535 (RFC 7143 §13.9 (TargetPortalGroupTag)). */
  readonly portalGroupTag?: number;
};

/** Assigned to iSCSI by IANA. */
export const DEFAULT_PORT = 3260;

/** Longest DNS name (RFC 1035 §2.3.4 (Size limits)), without the final dot. */
const HOST_CHARACTERS_MAX = 253;

/** The portal, or in words what is wrong with `text`. */
export function readPortal(text: string): PortalAddress | { readonly fault: string } {
  const match = /^(.*?)(?:,([^,]*))?$/s.exec(text);
  const tagText = match?.[2];
  const place = readPlace(match?.[1] ?? '');
  if ('fault' in place) return place;
  const port = place.portText === undefined ? DEFAULT_PORT : parseNumericalValue(place.portText);
  if (port === null || port < 1 || port > 65535) {
    return { fault: `port ${quoted(place.portText ?? '')} is not a number from 1 to 65535` };
  }
  if (tagText === undefined) return { host: place.host, port };
  const portalGroupTag = parseNumericalValue(tagText);
  if (portalGroupTag === null || portalGroupTag > 65535) {
    return { fault: `portal group tag ${quoted(tagText)} is not a number from 0 to 65535` };
  }
  return { host: place.host, port, portalGroupTag };
}

/** `host:port` with brackets around IPv6, and `,tag` when there is one. */
export function formatPortal(portal: PortalAddress): string {
  const host = portal.host.includes(':') ? `[${portal.host}]` : portal.host;
  const tag = portal.portalGroupTag === undefined ? '' : `,${portal.portalGroupTag}`;
  return `${host}:${portal.port}${tag}`;
}

type Place = { host: string; portText: string | undefined };

function readPlace(text: string): Place | { readonly fault: string } {
  if (text === '') return { fault: 'the host is missing' };
  if (text.startsWith('[')) {
    const bracketed = /^\[([^\]]*)\](?::(.*))?$/s.exec(text);
    const host = bracketed?.[1] ?? '';
    if (!bracketed || !isIpv6(host)) return { fault: `${quoted(text)} is not a bracketed IPv6` };
    return { host, portText: bracketed[2] };
  }
  // An IPv6 address without brackets cannot carry a port; some targets send it nevertheless.
  if (isIpv6(text)) return { host: text, portText: undefined };
  const [host = '', portText, ...rest] = text.split(':');
  if (rest.length > 0)
    return { fault: 'an IPv6 address with a port needs brackets: [address]:port' };
  const isHost = /^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$/.test(host);
  if (!isHost || host.includes('..') || host.length > HOST_CHARACTERS_MAX) {
    return { fault: `${quoted(host)} is neither a host name nor an address` };
  }
  return { host, portText };
}

/** RFC 4291 §2.2 (Text Representation of Addresses), with an optional zone. */
function isIpv6(text: string): boolean {
  const address = /^([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9_.-]{1,32})?$/.exec(text)?.[1];
  if (address === undefined || !address.includes(':')) return false;
  const halves = address.split('::');
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === '' ? [] : half.split(':')));
  const tail = groups.at(-1) ?? '';
  const hasIpv4 = tail.includes('.');
  if (hasIpv4 && !isIpv4(tail)) return false;
  const words = hasIpv4 ? groups.slice(0, -1) : groups;
  if (!words.every((word) => /^[0-9A-Fa-f]{1,4}$/.test(word))) return false;
  const count = words.length + (hasIpv4 ? 2 : 0);
  return halves.length === 2 ? count < 8 : count === 8;
}

function isIpv4(text: string): boolean {
  const bytes = text.split('.');
  return bytes.length === 4 && bytes.every((byte) => /^\d{1,3}$/.test(byte) && Number(byte) < 256);
}
