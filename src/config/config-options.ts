import * as z from 'zod';
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
  /** The numbers it takes, if it is a number; a row may take a word or 0 beside them. */
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

/** More processors than a host has targets that keep them busy. */
const WORKERS_MAX = 64;
const workers = z.preprocess(
  (value) => (value === 'auto' ? value : toNumber(value)),
  z.union([z.literal('auto'), z.number().int().min(0).max(WORKERS_MAX)]),
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
    'iSCSI name of this initiator (default: that in /etc/iscsi/initiatorname.iscsi)',
  ),
  sessionType: row<SessionType>(
    z.enum(sessionTypes),
    `one of ${sessionTypes.join(', ')}`,
    'type of the session',
    'data',
  ),
  chapUser: text('CHAP user of this initiator'),
  chapSecretFile: text('file with the CHAP secret of this initiator, readable by its owner only'),
  targetChapUser: text('CHAP user that the target must authenticate as'),
  targetChapSecretFile: text(
    'file with the CHAP secret of the target, which then must authenticate itself',
  ),
  chapAlgorithms: choices(
    algorithms,
    algorithms,
    'CHAP algorithms to offer, in order of preference',
  ),
  headerDigest: choices(
    digests,
    ['None'],
    'header digests to offer, in order of preference; without None they are required',
  ),
  dataDigest: choices(
    digests,
    ['None'],
    'data digests to offer, in order of preference; without None they are required',
  ),
  removalLatencySeconds: {
    ...row<number>(
      removalLatency,
      'a number of seconds from 0 to 604800, or never',
      'seconds an outage may last before held requests fail and the disk is removed, or never',
      60,
    ),
    range: { min: 0, max: REMOVAL_LATENCY_MAX },
  },
  reconnectIntervalSeconds: seconds(
    0.1,
    3600,
    5,
    'seconds between rounds of login attempts over all portals',
  ),
  loginTimeoutSeconds: seconds(0.1, 3600, 15, 'seconds that a TCP connection and login may take'),
  noopIntervalSeconds: {
    ...row<number>(
      z.preprocess(toNumber, z.union([z.literal(0), z.number().min(0.1).max(3600)])),
      '0 or a number of seconds from 0.1 to 3600',
      'seconds without a PDU from the target before a ping (NOP-Out); 0: no pings',
      5,
    ),
    range: { min: 0, max: 3600 },
  },
  noopTimeoutSeconds: seconds(
    0.1,
    3600,
    5,
    'seconds that a ping may take before the connection is given up',
  ),
  abortTimeoutSeconds: seconds(0.1, 3600, 15, 'seconds that an ABORT TASK may take'),
  logicalUnitResetTimeoutSeconds: seconds(
    0.1,
    3600,
    30,
    'seconds that a LOGICAL UNIT RESET may take',
  ),
  taskTimeoutSeconds: seconds(
    0.1,
    86_400,
    60,
    'seconds that a command may take before it is aborted',
  ),
  portals: row<readonly PortalAddress[]>(
    z.preprocess(toList, z.array(portal).max(LIST_LENGTH_MAX)),
    'a list of portals host[:port]',
    'other portals of the same target: additional paths (multipath auto), or tried in turn (off)',
    [],
  ),
  multipath: row<Multipath>(
    z.enum(multipath),
    `one of ${multipath.join(', ')}`,
    'auto: one session to each portal, each a path to the same disks; off: one session',
    'auto',
  ),
  sessionsPerPortal: whole(1, 32, 1, 'sessions to each portal, each a path to the disks'),
  pathPolicy: row<PathPolicy>(
    z.enum(pathPolicies),
    `one of ${pathPolicies.join(', ')}`,
    'which of the paths in the best access state the next command uses',
    'least-queue',
  ),
  alua: row<Alua>(
    z.enum(alua),
    `one of ${alua.join(', ')}`,
    'target port group states: follow them (implicit), also request a change if no path is ' +
      'usable (explicit), or ignore them (off)',
    'implicit',
  ),
  pathCheckSeconds: seconds(0.1, 3600, 5, 'seconds between checks of a path'),
  queueDepthMax: whole(1, 4096, 128, 'commands that a session may have in flight'),
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
    'bytes of requests in flight or held; beyond that, clients are not read from',
    128 * MIB,
  ),
  retainWrites: row<RetainWrites>(
    z.enum(retainWrites),
    `one of ${retainWrites.join(', ')}`,
    'retain acknowledged writes until they are flushed, and write them again after an outage: ' +
      'if the disk reports a volatile write cache (auto), always, or never',
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
    'bytes of acknowledged writes to retain for each LUN',
    64 * MIB,
  ),
  maxConnections: whole(1, 65_535, 1, 'MaxConnections to offer; a session has one connection'),
  errorRecoveryLevel: whole(
    0,
    2,
    0,
    'ErrorRecoveryLevel to offer; a session recovers by reinstatement (level 0)',
  ),
  initialR2T: flag(false, 'InitialR2T to offer: the target requests all write data'),
  immediateData: flag(true, 'ImmediateData to offer: write data goes along with the command'),
  firstBurstLength: whole(
    512,
    LENGTH_MAX,
    262_144,
    'FirstBurstLength to offer: bytes of unsolicited data',
  ),
  maxBurstLength: whole(512, LENGTH_MAX, 262_144, 'MaxBurstLength to offer: bytes of a data burst'),
  maxRecvDataSegmentLength: whole(
    512,
    LENGTH_MAX,
    262_144,
    'MaxRecvDataSegmentLength to declare: bytes of a data segment',
  ),
  maxOutstandingR2T: whole(
    1,
    65_535,
    1,
    'MaxOutstandingR2T to offer: R2Ts that a command may have outstanding',
  ),
  readOnly: flag(false, 'reject writes'),
  shared: flag(
    false,
    'use LUNs that another session of this host may write to; a cluster file system must ' +
      'coordinate the writers',
  ),
  allowUnidentified: flag(
    false,
    'after an outage, accept a disk without identifier and serial number if vendor, product ' +
      'and size are equal',
  ),
  luns: row<readonly number[]>(lunList, 'a list of LUNs, e.g. 0,1', 'use only these LUNs'),
  cpuAffinity: row<readonly number[]>(
    cpuList,
    'a list of processors, e.g. 0-3,5',
    'processors that the process may run on',
  ),
  busyPollMicroseconds: whole(
    0,
    1000,
    50,
    'microseconds to busy-poll before sleeping, if that improves throughput; 0: off',
  ),
  workers: {
    ...row<number | 'auto'>(
      workers,
      `a whole number from 0 to ${WORKERS_MAX}, or auto`,
      'threads of the daemon that serve its sessions; auto: one for each processor',
      0,
    ),
    range: { min: 0, max: WORKERS_MAX },
  },
} as const;

export type OptionName = keyof typeof OPTION_ROWS;
export const OPTION_NAMES = Object.keys(OPTION_ROWS) as readonly OptionName[];

/** Options of the process that serves; a login has them not. */
const PROCESS_OPTIONS = ['cpuAffinity', 'busyPollMicroseconds', 'workers'] as const;
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
