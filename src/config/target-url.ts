import { UsageError } from '../base/errors.js';
import { DEFAULT_PORT, type PortalAddress, readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { SessionOptions, TargetUrl } from './contract.js';

const SCHEME = 'iscsi://';
/** Largest number of the extended flat addressing of SAM-5 §4.7.7.5.4: 24 bits. */
const LUN_MAX = 0xff_ffff;
/** Longest URL looked at: a 223-byte target name, names and addresses leave a wide margin. */
const URL_LENGTH_MAX = 2048;
const SHAPE = 'iscsi://[user@]host[:port]/<target-name>[/<lun>]';

/** A portal with the credentials in front of it. */
export type Authority = PortalAddress & {
  readonly user?: string;
  readonly password?: string;
};

/**
 * Takes a target URL apart, in the form libiscsi and QEMU use: `user%password@`, IPv6 addresses
 * in brackets, no percent-decoding. Throws UsageError that names the part that is wrong; a
 * password is never in its message.
 */
export function parseTargetUrl(text: string): TargetUrl {
  const rest = afterScheme(text);
  const slash = authorityEnd(rest);
  const shown = redacted(text);
  if (slash < 0) {
    throw wrong(shown, 'it names no target', `Write ${SHAPE}; \`discover\` lists the names.`);
  }
  const authority = parseAuthority(rest.slice(0, slash), shown);
  const path = rest.slice(slash + 1).split('/');
  const [name = '', lun, ...more] = path;
  if (more.length > 0) {
    throw wrong(shown, 'it has more than a target name and a LUN after the host', fix());
  }
  if (name === '') {
    throw wrong(shown, 'it names no target', `Write ${SHAPE}; \`discover\` lists the names.`);
  }
  const fault = iscsiNameFault(name);
  if (fault !== null) throw wrong(shown, `of its target name '${name}', ${fault}`, fix());
  if (authority.portalGroupTag !== undefined) {
    throw wrong(shown, 'a portal group tag has no place in it', "Omit ',tag'.");
  }
  return {
    ...authority,
    targetName: name,
    lun: lun === undefined ? null : parseLun(lun, shown),
  };
}

/** Takes `host[:port][,tag]`, `[ipv6]:port` or `iscsi://[user@]host[:port][/]` apart. */
export function parsePortalArgument(text: string): Authority {
  const rest = text.startsWith(SCHEME) ? afterScheme(text) : text;
  const shown = redacted(text);
  const slash = authorityEnd(rest);
  if (slash >= 0 && slash < rest.length - 1) {
    throw wrong(shown, 'a portal has no target name', 'Write host[:port], e.g. 192.0.2.1:3260.');
  }
  return parseAuthority(slash >= 0 ? rest.slice(0, slash) : rest, shown);
}

/** The URL as text, to be shown: with the user, never with the password. */
export function formatTargetUrl(url: TargetUrl): string {
  const user = url.user === undefined ? '' : `${url.user}@`;
  const lun = url.lun === null ? '' : `/${url.lun}`;
  return `${SCHEME}${user}${formatHostPort(url)}/${url.targetName}${lun}`;
}

/** The LUNs that are meant: that of the URL, else those of the option; null: all there are. */
export function wantedLuns(
  url: TargetUrl,
  { luns = [] }: Pick<SessionOptions, 'luns'>,
): readonly number[] | null {
  if (url.lun !== null) return [url.lun];
  return luns.length === 0 ? null : luns;
}

/** `host[:port]` as text: IPv6 in brackets, the usual port omitted. */
export function formatHostPort(portal: { readonly host: string; readonly port: number }): string {
  const host = portal.host.includes(':') ? `[${portal.host}]` : portal.host;
  return portal.port === DEFAULT_PORT ? host : `${host}:${portal.port}`;
}

function afterScheme(text: string): string {
  if (text.length > URL_LENGTH_MAX) {
    throw new UsageError(`The target URL has ${text.length} characters; ${URL_LENGTH_MAX} at most`);
  }
  const shown = redacted(text);
  if (!text.startsWith(SCHEME)) {
    throw wrong(shown, `it does not begin with ${SCHEME}`, `Write ${SHAPE}.`);
  }
  for (const mark of ['?', '#']) {
    if (text.includes(mark)) {
      throw wrong(shown, `'${mark}' has no meaning in it`, 'Give options as flags; see --help.');
    }
  }
  const bad = /[\s\p{Cc}]/u.exec(text);
  if (bad) throw wrong(shown, `there is a blank or control character in it`, 'Quote the URL.');
  return text.slice(SCHEME.length);
}

/** The last '@' ends the credentials: no host or target name has one, a password may, and a '/'. */
function authorityEnd(rest: string): number {
  return rest.indexOf('/', rest.lastIndexOf('@') + 1);
}

function parseAuthority(text: string, shown: string): Authority {
  const at = text.lastIndexOf('@');
  const place = text.slice(at + 1);
  const portal = readPortal(place);
  if ('fault' in portal) {
    // Where the '@' was forgotten, the words of the fault would have the password.
    const isPassword = /^[^[]*%/.test(place);
    throw wrong(
      shown,
      isPassword ? "there is no '@' and host after the user" : portal.fault,
      fix(),
    );
  }
  if (at < 0) return portal;
  const credentials = text.slice(0, at);
  const percent = credentials.indexOf('%');
  const user = percent < 0 ? credentials : credentials.slice(0, percent);
  if (user === '') throw wrong(shown, "the user before '@' is empty", fix());
  // Other tools take user:password; a ':' is fine in an iSCSI name, which many users are.
  if (user.includes(':') && !/^(?:iqn|eui|naa)\./.test(user)) {
    throw wrong(shown, "there is a ':' in the user", 'Between user and password stands a %.');
  }
  if (percent < 0) return { ...portal, user };
  const password = credentials.slice(percent + 1);
  if (password === '') {
    throw wrong(shown, "the password after '%' is empty", 'Omit the % to be prompted for it.');
  }
  return { ...portal, user, password };
}

function parseLun(text: string, shown: string): number {
  if (text === '') {
    throw wrong(shown, "the LUN after the last '/' is missing", "Omit the '/' for every LUN.");
  }
  const lun = /^\d{1,8}$/.test(text) ? Number(text) : LUN_MAX + 1;
  if (lun > LUN_MAX) {
    throw wrong(shown, `the LUN '${text}' is not a number from 0 to ${LUN_MAX}`, fix());
  }
  return lun;
}

/** The text with what may be a password left out; a password may hold any character. */
function redacted(text: string): string {
  const short = text.slice(0, URL_LENGTH_MAX);
  const scheme = short.startsWith(SCHEME) ? SCHEME : '';
  const rest = short.slice(scheme.length);
  const shown = rest.includes('@')
    ? rest.replace(/^([^%:@]*(?:@[^%:@]*)*)[%:].*@/s, '$1%***@')
    : rest.replace(/^([^%[]*)%.*/s, '$1%***');
  return `'${scheme}${shown}'`;
}

function fix(): string {
  return `The form is ${SHAPE}.`;
}

function wrong(shown: string, why: string, next: string): UsageError {
  return new UsageError(`The target URL ${shown} is wrong: ${why.replace(/\.$/, '')}. ${next}`);
}
