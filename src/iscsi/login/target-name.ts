import { quoted } from '../pdu/text.js';

/**
 * iSCSI node names, of targets and initiators alike: RFC 7143 §4.2.7.2 (iSCSI Name Encoding) and
 * §4.2.7.3 (iSCSI Name Structure).
 */

/** RFC 7143 §4.2.7.2 (iSCSI Name Encoding): bytes of UTF-8. */
export const NAME_BYTES_MAX = 223;

/**
 * What is wrong with `name`, or null. Case is not judged, since names that a target reports are
 * used as they are.
 */
export function iscsiNameFault(name: string): string | null {
  const bytes = Buffer.byteLength(name, 'utf8');
  if (bytes === 0) return 'it is empty';
  if (bytes > NAME_BYTES_MAX) return `it has ${bytes} bytes, over the ${NAME_BYTES_MAX} allowed`;
  // RFC 3722 allows dash, dot and colon; the underscore is in so many names in use that it passes.
  const odd = /[^\p{L}\p{M}\p{N}\-.:_]/u.exec(name)?.[0];
  if (odd !== undefined) return `${quoted(odd)} cannot be in a name`;
  switch (name.slice(0, 4).toLowerCase()) {
    case 'iqn.':
      return iqnFault(name.slice(4));
    case 'eui.':
      return /^[0-9a-f]{16}$/i.test(name.slice(4)) ? null : 'eui. needs 16 hexadecimal digits';
    case 'naa.':
      return /^([0-9a-f]{16}|[0-9a-f]{32})$/i.test(name.slice(4))
        ? null
        : 'naa. needs 16 or 32 hexadecimal digits';
    default:
      return 'it does not start with iqn., eui. or naa.';
  }
}

/**
 * The form in which names are compared, RFC 7143 §4.2.7.2 (iSCSI Name Encoding): what the profile
 * of RFC 3722 for stringprep makes of a name, which is Unicode's NFKC in lower case. A few letters
 * that the profile keeps apart (the dotless i) have one form here, and no name has two.
 */
export function normalIscsiName(name: string): string {
  return name.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC');
}

/** True for two spellings of one name. */
export function iscsiNamesEqual(left: string, right: string): boolean {
  return left === right || normalIscsiName(left) === normalIscsiName(right);
}

/** RFC 7143 §4.2.7.4 (Type "iqn." (iSCSI Qualified Name)): date, reversed domain, own part. */
function iqnFault(rest: string): string | null {
  const match = /^(\d{4})-(\d{2})(\.(.*))?$/s.exec(rest);
  if (!match) return 'iqn. needs a date yyyy-mm next, as in iqn.2001-04.com.example:disk';
  const month = Number(match[2]);
  if (month < 1 || month > 12) return `month ${match[2]} of the date is not 01 to 12`;
  const domain = (match[4] ?? '').split(':')[0] ?? '';
  if (domain === '') return 'the reversed domain name after the date is missing';
  if (domain.split('.').includes('')) return `the domain name ${quoted(domain)} has an empty label`;
  return null;
}
