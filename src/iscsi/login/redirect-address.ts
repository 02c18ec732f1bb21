import { decodeText, quoted } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import { type PortalAddress, readPortal } from './portal.js';

/**
 * TargetAddress of a redirection, as RFC 7143 §11.13.5 (Status-Class and Status-Detail) requires
 * at least one; one that cannot be used costs no other.
 */
export function redirectAddresses(data: Buffer, quirks: QuirkLog): PortalAddress[] {
  const addresses: PortalAddress[] = [];
  let fault = 'without a TargetAddress';
  for (const [key, value] of decodeText(data, quirks)) {
    if (key !== 'TargetAddress') continue;
    const portal = readPortal(value);
    if ('fault' in portal) {
      fault = `to ${quoted(value)}: ${portal.fault}`;
      quirks.met('redirect-address', `the target redirects the login ${fault}`);
    } else {
      addresses.push(portal);
    }
  }
  if (addresses.length > 0) return addresses;
  throw brokenRule('redirect-nowhere', `the target redirects the login ${fault}`);
}
