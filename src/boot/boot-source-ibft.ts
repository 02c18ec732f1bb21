import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import { Secret } from '../config/secrets.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { BootChap, BootNic, BootSource } from './boot-source.js';

/** A sysfs attribute has at most a page. */
const VALUE_LENGTH_MAX = 4096;
/** The table has room for two; the kernel shows as many as it finds. */
const ENTRIES_MAX = 16;

/** Flags of a table entry (iSCSI Boot Firmware Table, "Flags" of each structure). */
const FLAG = { valid: 1, bootSelected: 2 } as const;

const CHAP_TYPES = ['none', 'oneWay', 'mutual'] as const;

/**
 * The boot LUN of the iSCSI Boot Firmware Table, as Linux shows it (module iscsi_ibft, stable ABI
 * sysfs-ibft): folders `initiator`, `ethernet<N>` and `target<N>`. Null without a table. Throws
 * UsageError that names the file that is wrong; it never shows a secret.
 */
export function readIbft(path: string): BootSource | null {
  const names = namesIn(path);
  if (names === null) return null;
  const target = chooseTarget(path, names);
  const targetName = target.text('target-name');
  requireName(target, 'target-name', targetName);
  const initiator = names.includes('initiator') ? new Entry(join(path, 'initiator')) : null;
  const initiatorName = initiator?.isValid === true ? initiator.text('initiator-name') : '';
  if (initiator !== null && initiatorName !== '') {
    requireName(initiator, 'initiator-name', initiatorName);
  }
  const nic = readNic(path, names, target);
  const chap = readChap(target);
  return {
    origin: `the firmware's iSCSI boot table (${target.name})`,
    portal: readTargetPortal(target),
    targetName,
    lun: readLun(target),
    ...(initiatorName === '' ? {} : { initiatorName }),
    ...(chap === null ? {} : { chap }),
    ...(nic === null ? {} : { nic }),
    options: {},
    warnings: [],
  };
}

/** One folder of the table. */
class Entry {
  readonly name: string;
  readonly #path: string;
  readonly #flags: number;

  constructor(path: string) {
    this.#path = path;
    this.name = path.slice(path.lastIndexOf('/') + 1);
    this.#flags = this.number('flags', 255) ?? 0;
  }

  get isValid(): boolean {
    return (this.#flags & FLAG.valid) !== 0;
  }

  get isSelected(): boolean {
    return this.isValid && (this.#flags & FLAG.bootSelected) !== 0;
  }

  /** The attribute; empty where the firmware gave none, since the kernel then omits it. */
  text(attribute: string): string {
    const path = join(this.#path, attribute);
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (cause) {
      const errno = codeOf(cause) || 'unknown';
      if (errno === 'ENOENT') return '';
      const denied = errno === 'EACCES';
      throw new UsageError(
        `The boot table's ${path} cannot be read (${errno}).${denied ? ' Run as root.' : ''}`,
        { cause, exitCode: (denied ? EXIT_CODES.notPermitted : EXIT_CODES.error).code },
      );
    }
    const value = text.replace(/\n$/, '');
    if (value.length > VALUE_LENGTH_MAX) throw this.wrong(attribute, 'it is too long');
    if (/\p{Cc}/u.test(value)) throw this.wrong(attribute, 'it has control characters');
    return value;
  }

  /** Null where the firmware gave none. */
  number(attribute: string, max: number): number | null {
    const text = this.text(attribute);
    if (text === '') return null;
    const value = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value <= max)) throw this.wrong(attribute, `it is not a number from 0 to ${max}`);
    return value;
  }

  wrong(attribute: string, why: string): UsageError {
    return new UsageError(
      `The firmware's iSCSI boot table is wrong: ${this.name}/${attribute}: ${why}. ` +
        "Correct it in the firmware's setup, or name the LUN on the kernel command line.",
      { code: 'ERR_BOOT_TABLE' },
    );
  }
}

/** The target the firmware started from; where it marks none, the first that is valid. */
function chooseTarget(path: string, names: readonly string[]): Entry {
  const targets = names
    .filter((name) => /^target\d{1,3}$/.test(name))
    .sort((left, right) => Number(left.slice(6)) - Number(right.slice(6)))
    .slice(0, ENTRIES_MAX)
    .map((name) => new Entry(join(path, name)));
  const chosen =
    targets.find((target) => target.isSelected) ?? targets.find((target) => target.isValid);
  if (chosen !== undefined) return chosen;
  throw new UsageError(
    `The firmware's iSCSI boot table (${path}) has no valid target. Set one up in the firmware, ` +
      'or name the LUN on the kernel command line.',
    { exitCode: EXIT_CODES.nothingFound.code, code: 'ERR_NO_BOOT_SOURCE' },
  );
}

function readTargetPortal(target: Entry): BootSource['portal'] {
  const address = target.text('ip-addr');
  if (address === '' || /^[0.:]+$/.test(address)) throw target.wrong('ip-addr', 'it is not set');
  const port = target.number('port', 65_535) ?? 3260;
  if (port === 0) throw target.wrong('port', 'it is 0');
  const host = readPortal(address.includes(':') ? `[${address}]` : address);
  if ('fault' in host) throw target.wrong('ip-addr', host.fault);
  return { host: host.host, port };
}

/**
 * The kernel prints the eight bytes of the LUN as hexadecimal numbers without leading zeros, one
 * after the other. Only the first level of the LUN structure of SAM-5 §4.7 is used by firmware;
 * within it these forms are unambiguous: peripheral device (0, n) and flat space (40h + n, n).
 */
function readLun(target: Entry): number {
  const text = target.text('lun');
  if (text === '') return 0;
  const peripheral = /^0([0-9a-f]{1,2})0{6}$/i.exec(text)?.[1];
  if (peripheral !== undefined) return Number.parseInt(peripheral, 16);
  const flat = /^([4-7][0-9a-f])([0-9a-f]{1,2})0{6}$/i.exec(text);
  if (flat?.[1] !== undefined && flat[2] !== undefined) {
    return ((Number.parseInt(flat[1], 16) & 0x3f) << 8) | Number.parseInt(flat[2], 16);
  }
  throw target.wrong('lun', `'${text.slice(0, 20)}' is not a LUN of one level`);
}

function readChap(target: Entry): BootChap | null {
  const type = CHAP_TYPES[target.number('chap-type', 255) ?? 0];
  if (type === undefined) throw target.wrong('chap-type', 'it is not 0, 1 or 2');
  if (type === 'none') return null;
  const user = required(target, 'chap-name');
  const secret = new Secret(required(target, 'chap-secret'));
  if (type === 'oneWay') return { user, secret };
  const reverseUser = target.text('rev-chap-name');
  const reverse = new Secret(required(target, 'rev-chap-name-secret'));
  return {
    user,
    secret,
    target: { secret: reverse, ...(reverseUser === '' ? {} : { user: reverseUser }) },
  };
}

function required(target: Entry, attribute: string): string {
  const value = target.text(attribute);
  if (value === '') throw target.wrong(attribute, 'it is empty, and chap-type asks for CHAP');
  return value;
}

/** The interface the target is associated with. */
function readNic(path: string, names: readonly string[], target: Entry): BootNic | null {
  const index = target.number('nic-assoc', 255) ?? 0;
  const name = `ethernet${index}`;
  if (!names.includes(name)) return null;
  const nic = new Entry(join(path, name));
  if (!nic.isValid) return null;
  const mac = nic.text('mac').toLowerCase();
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac)) {
    throw nic.wrong('mac', 'it is not an Ethernet address');
  }
  const address = addressOf(nic, 'ip-addr');
  const gateway = addressOf(nic, 'gateway');
  const vlan = nic.number('vlan', 4095) ?? 0;
  return {
    mac,
    ...(address === null ? {} : { address }),
    ...(gateway === null ? {} : { gateway }),
    ...(vlan === 0 ? {} : { vlan }),
  };
}

function addressOf(nic: Entry, attribute: string): string | null {
  const text = nic.text(attribute);
  if (text === '' || /^[0.:]+$/.test(text)) return null;
  const place = readPortal(text.includes(':') ? `[${text}]` : text);
  if ('fault' in place) throw nic.wrong(attribute, place.fault);
  return text;
}

function requireName(entry: Entry, attribute: string, name: string): void {
  const fault = iscsiNameFault(name);
  if (fault !== null) throw entry.wrong(attribute, fault);
}

/** Null without a table. */
function namesIn(path: string): readonly string[] | null {
  try {
    return readdirSync(path);
  } catch (cause) {
    const errno = codeOf(cause) || 'unknown';
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return null;
    throw new UsageError(`The firmware's iSCSI boot table ${path} cannot be read (${errno}).`, {
      cause,
      exitCode: (errno === 'EACCES' ? EXIT_CODES.notPermitted : EXIT_CODES.error).code,
    });
  }
}
