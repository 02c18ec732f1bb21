import { z } from 'zod';
import { parseCpuList } from '../base/cpu-list.js';
import { type PortalAddress, readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type {
  Alua,
  ChapAlgorithmName,
  DigestName,
  Multipath,
  PathPolicy,
  RetainWrites,
  SessionType,
} from './contract.js';

/**
 * The options every session takes, one row each. A schema accepts what the configuration file
 * has (numbers, booleans, lists) as well as the text of a flag or an environment variable.
 */

/** Lists are short: no target has that many portals or LUNs worth naming by hand. */
const LIST_LENGTH_MAX = 256;
const TEXT_LENGTH_MAX = 4096;
/** Largest value of MaxBurstLength and its kin (RFC 7143 §13.13 (MaxBurstLength)): 24 bits. */
const LENGTH_MAX = 0xff_ffff;
const MIB = 1 << 20;

type OptionRow<T> = {
  readonly schema: z.ZodType<T>;
  /** Absent: the option has no default. */
  readonly defaultValue?: T;
  /** Completes "must be …" in an error. */
  readonly expects: string;
  readonly help: string;
  readonly isBoolean?: true;
  /** The numbers it takes, where it is one; a row may take a word or 0 beside them. */
  readonly range?: NumberRange;
};

type NumberRange = { readonly min: number; readonly max: number };

function row<T>(
  schema: z.ZodType<T>,
  expects: string,
  help: string,
  defaultValue?: T,
): OptionRow<T> {
  return defaultValue === undefined
    ? { schema, expects, help }
    : { schema, expects, help, defaultValue };
}

function text(help: string): OptionRow<string> {
  return row(z.string().min(1).max(TEXT_LENGTH_MAX), 'a text that is not empty', help);
}

function whole(min: number, max: number, defaultValue: number, help: string): OptionRow<number> {
  const schema = z.preprocess(toNumber, z.number().int().min(min).max(max));
  const expects = `a whole number from ${min} to ${max}`;
  return { ...row(schema, expects, help, defaultValue), range: { min, max } };
}

function seconds(min: number, max: number, defaultValue: number, help: string): OptionRow<number> {
  const schema = z.preprocess(toNumber, z.number().min(min).max(max));
  const expects = `a number of seconds from ${min} to ${max}`;
  return { ...row(schema, expects, help, defaultValue), range: { min, max } };
}

function flag(defaultValue: boolean, help: string): OptionRow<boolean> {
  const schema = z.preprocess(toBoolean, z.boolean());
  return { ...row(schema, 'yes or no', help, defaultValue), isBoolean: true };
}

function choices<T extends string>(
  values: readonly T[],
  defaultValue: readonly T[],
  help: string,
): OptionRow<readonly T[]> {
  const known = z.preprocess((value) => sameIgnoringCase(value, values), z.enum(values));
  const schema = z.preprocess(toList, z.array(known).min(1).refine(hasNoTwins));
  return row<readonly T[]>(schema, `a list out of ${values.join(', ')}`, help, defaultValue);
}

const digests: readonly DigestName[] = ['None', 'CRC32C'];
const algorithms: readonly ChapAlgorithmName[] = ['SHA3-256', 'SHA256', 'SHA1', 'MD5'];
const retainWrites: readonly RetainWrites[] = ['auto', 'always', 'never'];
const multipath: readonly Multipath[] = ['auto', 'off'];
const pathPolicies: readonly PathPolicy[] = ['least-queue', 'round-robin', 'failover'];
const alua: readonly Alua[] = ['implicit', 'explicit', 'off'];
const sessionTypes: readonly SessionType[] = ['data', 'boot', 'informational'];

/** A week. */
const REMOVAL_LATENCY_MAX = 604_800;
const removalLatency = z.preprocess(
  (value) => (value === 'never' ? Number.POSITIVE_INFINITY : toNumber(value)),
  z.union([z.literal(Number.POSITIVE_INFINITY), z.number().min(0).max(REMOVAL_LATENCY_MAX)]),
);

const lunList = z.preprocess(
  toList,
  z
    .array(z.preprocess(toNumber, z.number().int().min(0).max(LENGTH_MAX)))
    .min(1)
    .max(LIST_LENGTH_MAX)
    .refine(hasNoTwins),
);

/** A text as the kernel has it, or the numbers and ranges of a YAML list. */
const cpuList = z
  .union([z.string(), z.number(), z.array(z.union([z.string(), z.number()]))])
  .transform((value, context): readonly number[] => {
    const found = parseCpuList(String(value));
    if (found !== null) return found;
    context.addIssue('no list of processors');
    return z.NEVER;
  });

const portal = z.string().transform((value, context): PortalAddress => {
  const address = readPortal(value);
  if (!('fault' in address)) return address;
  context.addIssue(address.fault);
  return z.NEVER;
});

const iscsiName = z.string().refine((name) => iscsiNameFault(name) === null);

export const OPTION_ROWS = {
  initiatorName: row<string>(
    iscsiName,
    'an iSCSI name, e.g. iqn.2001-04.com.example:host',
    'iSCSI name we log in with (default: /etc/iscsi/initiatorname.iscsi)',
  ),
  sessionType: row<SessionType>(
    z.enum(sessionTypes),
    `one of ${sessionTypes.join(', ')}`,
    'what the session is for',
    'data',
  ),
  chapUser: text('CHAP user we log in as'),
  chapSecretFile: text('file with our CHAP secret, readable by its owner only'),
  targetChapUser: text('CHAP user the target must prove to be'),
  targetChapSecretFile: text('file with the CHAP secret of the target'),
  chapAlgorithms: choices(algorithms, algorithms, 'CHAP algorithms, best first'),
  headerDigest: choices(digests, ['None'], 'header digests, best first'),
  dataDigest: choices(digests, ['None'], 'data digests, best first'),
  removalLatencySeconds: {
    ...row<number>(
      removalLatency,
      'a number of seconds from 0 to 604800, or never',
      'seconds an outage may last before held requests fail and the disk is removed, or never',
      60,
    ),
    range: { min: 0, max: REMOVAL_LATENCY_MAX },
  },
  reconnectIntervalSeconds: seconds(0.1, 3600, 5, 'seconds between attempts to reconnect'),
  loginTimeoutSeconds: seconds(0.1, 3600, 15, 'seconds a connection and login may take'),
  noopIntervalSeconds: {
    ...row<number>(
      z.preprocess(toNumber, z.union([z.literal(0), z.number().min(0.1).max(3600)])),
      '0 or a number of seconds from 0.1 to 3600',
      'seconds of silence before a ping; 0: none',
      5,
    ),
    range: { min: 0, max: 3600 },
  },
  noopTimeoutSeconds: seconds(0.1, 3600, 5, 'seconds a ping may take'),
  abortTimeoutSeconds: seconds(0.1, 3600, 15, 'seconds an ABORT TASK may take'),
  logicalUnitResetTimeoutSeconds: seconds(0.1, 3600, 30, 'seconds a LOGICAL UNIT RESET may take'),
  taskTimeoutSeconds: seconds(0.1, 86_400, 60, 'seconds a command may take before it is aborted'),
  portals: row<readonly PortalAddress[]>(
    z.preprocess(toList, z.array(portal).max(LIST_LENGTH_MAX)),
    'a list of portals host[:port]',
    'other portals of the same target: paths of their own to its disks, or tried in turn',
    [],
  ),
  multipath: row<Multipath>(
    z.enum(multipath),
    `one of ${multipath.join(', ')}`,
    'a session for each portal, all of them paths of the same disks (auto), or one session (off)',
    'off',
  ),
  sessionsPerPortal: whole(1, 32, 1, 'sessions to each portal, all of them paths of the disks'),
  pathPolicy: row<PathPolicy>(
    z.enum(pathPolicies),
    `one of ${pathPolicies.join(', ')}`,
    'which of the best paths the next command takes',
    'least-queue',
  ),
  alua: row<Alua>(
    z.enum(alua),
    `one of ${alua.join(', ')}`,
    'states of port groups: followed (implicit), set if no path is left (explicit), ignored (off)',
    'implicit',
  ),
  pathCheckSeconds: seconds(0.1, 3600, 5, 'seconds between checks of a path that cannot be used'),
  queueDepthMax: whole(1, 4096, 128, 'commands in flight of a session'),
  heldBytesMax: row<number>(
    z.preprocess(
      toBytes,
      z
        .number()
        .int()
        .min(MIB)
        .max(1024 * 1024 * MIB),
    ),
    'a size from 1 MiB to 1 TiB, e.g. 128MiB',
    'bytes of requests held during an outage',
    128 * MIB,
  ),
  retainWrites: row<RetainWrites>(
    z.enum(retainWrites),
    `one of ${retainWrites.join(', ')}`,
    'keep acknowledged writes until they are flushed, to write them again after an outage: if ' +
      'the disk reports a volatile cache, always, or never',
    'auto',
  ),
  retainedBytesMax: row<number>(
    z.preprocess(
      toBytes,
      z
        .number()
        .int()
        .min(MIB)
        .max(512 * MIB),
    ),
    'a size from 1 MiB to 512 MiB, e.g. 64MiB',
    'bytes of acknowledged writes that are kept of each LUN',
    64 * MIB,
  ),
  maxConnections: whole(1, 65_535, 1, 'connections of a session'),
  errorRecoveryLevel: whole(0, 2, 0, 'ErrorRecoveryLevel to offer'),
  initialR2T: flag(false, 'ask the target to request all write data'),
  immediateData: flag(true, 'send write data along with the command'),
  firstBurstLength: whole(512, LENGTH_MAX, 262_144, 'bytes of unsolicited data'),
  maxBurstLength: whole(512, LENGTH_MAX, 262_144, 'bytes of a burst of data'),
  maxRecvDataSegmentLength: whole(512, LENGTH_MAX, 262_144, 'bytes of a data segment we take'),
  maxOutstandingR2T: whole(1, 65_535, 1, 'R2Ts of a command at the same time'),
  readOnly: flag(false, 'refuse writes'),
  shared: flag(false, 'use LUNs that another session of this machine may write to'),
  allowUnidentified: flag(
    false,
    'after an outage, take a disk without identifier and serial number for the same one',
  ),
  luns: row<readonly number[]>(lunList, 'a list of LUNs, e.g. 0,1', 'only these LUNs'),
  cpuAffinity: row<readonly number[]>(
    cpuList,
    'a list of processors, e.g. 0-3,5',
    'processors the serving process may run on',
  ),
  busyPollMicroseconds: whole(
    0,
    1000,
    50,
    'microseconds to look for answers before sleeping, where that is faster; 0: none',
  ),
} as const;

export type OptionName = keyof typeof OPTION_ROWS;
export const OPTION_NAMES = Object.keys(OPTION_ROWS) as readonly OptionName[];

/** Options of the process that serves; a login has them not. */
const PROCESS_OPTIONS = ['cpuAffinity', 'busyPollMicroseconds'] as const;
type ProcessOption = (typeof PROCESS_OPTIONS)[number];

export function isProcessOption(name: OptionName): name is ProcessOption {
  return PROCESS_OPTIONS.some((option) => option === name);
}

/** The type of an option's value. */
export type OptionValue<Name extends OptionName> = z.output<(typeof OPTION_ROWS)[Name]['schema']>;

/** `removalLatencySeconds` → `removal-latency`: the name of the flag, without dashes in front. */
export function flagOf(name: OptionName): string {
  return name
    .replace(/(?:Micros|S)econds$/, '')
    .replace(/R2T$/, '-r2t')
    .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `removalLatencySeconds` → `ISCSI_NBD_REMOVAL_LATENCY`. */
export function environmentNameOf(name: OptionName): string {
  return `ISCSI_NBD_${flagOf(name).toUpperCase().replaceAll('-', '_')}`;
}

function toNumber(value: unknown): unknown {
  return typeof value === 'string' && /^\d+(?:\.\d+)?$/.test(value) ? Number(value) : value;
}

function toBoolean(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (/^(?:yes|true|on|1)$/i.test(value)) return true;
  return /^(?:no|false|off|0)$/i.test(value) ? false : value;
}

function toList(value: unknown): unknown {
  if (typeof value === 'string') return value.split(',').map((item) => item.trim());
  return typeof value === 'number' ? [value] : value;
}

function toBytes(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  const parts = /^(\d+)\s*(?:([KMGT])(?:iB)?)?$/i.exec(value);
  if (!parts) return value;
  const power = ['', 'K', 'M', 'G', 'T'].indexOf((parts[2] ?? '').toUpperCase());
  return Number(parts[1]) * 1024 ** power;
}

function sameIgnoringCase(value: unknown, values: readonly string[]): unknown {
  if (typeof value !== 'string') return value;
  return values.find((known) => known.toLowerCase() === value.toLowerCase()) ?? value;
}

function hasNoTwins(list: readonly unknown[]): boolean {
  return new Set(list).size === list.length;
}
