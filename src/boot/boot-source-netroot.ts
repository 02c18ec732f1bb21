import { UsageError } from '../base/errors.js';
import { Secret } from '../config/secrets.js';
import { readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { BootChap } from './boot-source.js';

const FORM =
  'iscsi:[user:password[:targetuser:targetpassword]@][server]:[protocol]:[port]:' +
  '[[interface]:[device]:][LUN]:targetname';
/** Assigned to TCP by IANA. */
const TCP = '6';
const LUN_MAX = 0xff_ffff;

/** What one `netroot=iscsi:…` says; the rest is left to `rd.iscsi.*` and defaults. */
export type NetrootPlace = {
  /** IPv6 without its brackets. */
  readonly host?: string;
  readonly port?: number;
  readonly lun: number;
  readonly targetName: string;
  readonly chap?: BootChap;
  /** It names an interface to log in over. */
  readonly isBound: boolean;
};

/**
 * Takes the value of dracut's `netroot=` apart (dracut.cmdline(7), which follows RFC 4173 §5 (DHCP
 * Stage)). Throws UsageError that never shows a secret.
 */
export function parseNetroot(value: string): NetrootPlace {
  const rest = value.slice('iscsi:'.length);
  // Names hold colons too, so the last field is found by how names begin.
  const start = Math.max(...['iqn.', 'eui.', 'naa.'].map((type) => rest.lastIndexOf(`:${type}`)));
  if (start < 0) throw wrong('it has no target name that begins with iqn., eui. or naa.');
  const targetName = rest.slice(start + 1);
  const fault = iscsiNameFault(targetName);
  if (fault !== null) throw wrong(`of its target name, ${fault}`);
  const before = rest.slice(0, start);
  // A password may hold an '@', a server does not.
  const at = before.lastIndexOf('@');
  const chap = at > 0 ? parseCredentials(before.slice(0, at)) : undefined;
  const { server, fields } = splitPlace(before.slice(at + 1));
  if (fields.length !== 3 && fields.length !== 5) {
    throw wrong(`it has ${fields.length} fields between server and target name, not 3 or 5`);
  }
  const [protocol = '', port = ''] = fields;
  if (protocol !== '' && protocol !== TCP) throw wrong('the protocol is not 6 (TCP)');
  const host = server === '' ? undefined : parseServer(server);
  return {
    targetName,
    lun: numberOf('LUN', fields.at(-1) ?? '', LUN_MAX) ?? 0,
    isBound: fields.length === 5 && fields.slice(2, 4).some((field) => field !== ''),
    ...(host === undefined ? {} : { host }),
    ...portOf(port),
    ...(chap === undefined ? {} : { chap }),
  };
}

function splitPlace(text: string): { server: string; fields: string[] } {
  const bracketed = /^(\[[^\]]*\])(?::(.*))?$/s.exec(text);
  if (bracketed?.[1] !== undefined) {
    return { server: bracketed[1], fields: bracketed[2]?.split(':') ?? [] };
  }
  const [server = '', ...fields] = text.split(':');
  return { server, fields };
}

function parseServer(server: string): string {
  const place = readPortal(server);
  if ('fault' in place) throw wrong(`of its server, ${place.fault}`);
  return place.host;
}

function portOf(text: string): { port?: number } {
  const port = numberOf('port', text, 65_535);
  if (port === 0) throw wrong('the port is 0');
  return port === undefined ? {} : { port };
}

function parseCredentials(text: string): BootChap {
  const [user = '', secret = '', ...back] = text.split(':');
  if (user === '' || secret === '' || (back.length !== 0 && back.length !== 2)) {
    throw wrong("before '@' stand user:password or user:password:targetuser:targetpassword");
  }
  const chap = { user, secret: new Secret(secret) };
  const [targetUser = '', targetSecret = ''] = back;
  if (targetSecret === '') {
    if (targetUser !== '') throw wrong("the target's user has no password");
    return chap;
  }
  const target = { secret: new Secret(targetSecret) };
  return { ...chap, target: targetUser === '' ? target : { ...target, user: targetUser } };
}

function numberOf(what: string, text: string, max: number): number | undefined {
  if (text === '') return undefined;
  const value = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
  if (value <= max) return value;
  throw wrong(`the ${what} is not a number from 0 to ${max}`);
}

function wrong(why: string): UsageError {
  return new UsageError(
    `netroot=iscsi: of the kernel command line is wrong: ${why}. The form is ${FORM}.`,
  );
}
