import * as z from 'zod';
import { UsageError } from '../base/errors.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { recordPathsSchema } from './record-paths.js';

/**
 * The version of records that this program writes; docs/PACKAGES.md tells what changed in each. It
 * is the first key of a record, where the package for Debian finds it before it is installed.
 */
export const RECORD_VERSION = 2;

/** Checked as far as a take-over relies on it; whether it is the same disk the gate decides. */
const factsSchema = z.looseObject({
  vendor: z.string(),
  product: z.string(),
  serial: z.string(),
  identifiers: z.array(z.string()),
  deviceType: z.number(),
  blockSizeBytes: z.number().int().min(512).max(65536),
  blockCount: z.number().int().positive(),
  readOnly: z.boolean(),
  writeCacheEnabled: z.boolean(),
  // Records of versions that did not know these.
  commandQueuing: z.boolean().default(true),
  notes: z.array(z.string()).default([]),
  thin: z.looseObject({ unmap: z.boolean() }),
  limits: z.looseObject({ maxTransferBlocks: z.number() }),
});

const sessionIdSchema = z.string().regex(/^[0-9a-f]{16}$/);
const isidSchema = z.string().regex(/^[0-9a-f]{12}$/);
const portalGroupSchema = z.number().int().min(0).max(0xffff).optional();
const disksSchema = z.array(
  z.strictObject({
    lun: z.number().int(),
    facts: factsSchema,
    /** The LUN's field; absent: the usual one of its number. */
    field: z
      .string()
      .regex(/^[0-9a-f]{16}$/)
      .optional(),
  }),
);

const loginSchema1 = z.strictObject({
  version: z.literal(1),
  sessionId: sessionIdSchema,
  isid: isidSchema,
  /** Logged in again at every start; others only after a crash in the same boot. */
  persistent: z.boolean(),
  /** A session is established or being established, so that its devices may wait for us. */
  active: z.boolean(),
  /** The process before left its devices with all that it had acknowledged on the disks. */
  handedOver: z.boolean().optional(),
  /** LUNs that may have unflushed writes, because their disks were away. */
  unflushedLuns: z.array(z.number().int()).optional(),
  /** /proc/sys/kernel/random/boot_id of the boot the record was written in. */
  bootId: z.string(),
  initiatorName: z.string(),
  targetName: z.string(),
  sessionType: z.enum(['data', 'boot', 'informational']),
  portal: z.strictObject({ host: z.string(), port: z.number().int() }),
  /** Options as they were given at the login, by their names; secrets only by file name. */
  options: z.record(z.string(), z.unknown()),
  /** Disks the session's devices were made of. */
  disks: disksSchema,
  /** Of the session that the devices were made in. */
  portalGroupTag: portalGroupSchema,
});

const recordSchema = loginSchema1.extend({
  version: z.literal(RECORD_VERSION),
  /** Of `attach`: the LUNs that were asked for; null: all of the target. */
  luns: z.array(z.number().int()).nullable().optional(),
  /** Of `serve`. */
  socketPath: z.string().optional(),
  paths: recordPathsSchema,
});

/** What `attach` and `serve` wrote in version 1: the rest was in the name of the file. */
const ownedSchema1 = z.object({
  version: z.literal(1),
  sessionId: sessionIdSchema,
  isid: isidSchema,
  targetName: z.string(),
  pid: z.number().int(),
  disks: disksSchema,
  portalGroupTag: portalGroupSchema,
  bootId: z.string().optional(),
});

type ParsedRecord = z.output<typeof recordSchema>;

/** A session on disk, as the processes that have it one after another need it. */
export type SessionRecord = Readonly<Omit<ParsedRecord, 'disks'>> & {
  readonly disks: readonly FoundDisk[];
};

/** What there is one session of: a login of a daemon, what one `attach` or one `serve` wants. */
export type SessionKey = Pick<
  SessionRecord,
  'initiatorName' | 'targetName' | 'sessionType' | 'luns' | 'socketPath'
>;

/** A session that is to be: its key, and the portal it is logged in to first. */
export type SessionSubject = SessionKey & Pick<SessionRecord, 'portal'>;

/** The boot identity and the names of files are made of it: it stays what it was. */
export function keyText(key: SessionKey): string {
  const { initiatorName, targetName, sessionType, luns, socketPath } = key;
  const what = socketPath ?? (luns === undefined ? sessionType : luns);
  return JSON.stringify([initiatorName, targetName, what]);
}

/** A login of a daemon, and not a session that a process has for itself. */
export function isLogin({ luns, socketPath }: SessionKey): boolean {
  return luns === undefined && socketPath === undefined;
}

type Reading = {
  /** What the record has to be of; null: a login that only the record names. */
  readonly subject: SessionSubject | null;
  /** This boot of the machine: of a record that does not say so, its devices do. */
  readonly bootId: string;
};

/**
 * A record that was read, whatever version wrote it. Throws ZodError where it is malformed, and
 * UsageError where a version that is newer than this one has written it.
 */
export function parseRecord(value: unknown, { subject, bootId }: Reading): SessionRecord {
  const { version } = z.looseObject({ version: z.number() }).parse(value);
  if (version === 1) return fromVersion1(value, { subject, bootId });
  if (version > RECORD_VERSION) {
    throw new UsageError(
      `It is of version ${version}, and this iscsi-nbd reads up to ${RECORD_VERSION}.`,
    );
  }
  return recordSchema.parse(value) as unknown as SessionRecord;
}

function fromVersion1(value: unknown, { subject, bootId }: Reading): SessionRecord {
  if (subject === null || isLogin(subject)) {
    return { ...loginSchema1.parse(value), version: RECORD_VERSION } as unknown as SessionRecord;
  }
  const { pid: _pid, ...old } = ownedSchema1.parse(value);
  const { initiatorName, sessionType, portal, luns, socketPath } = subject;
  return recordSchema.parse({
    ...{ initiatorName, sessionType, portal, luns, socketPath },
    ...{ persistent: false, active: true, options: {}, bootId },
    ...old,
    version: RECORD_VERSION,
  }) as unknown as SessionRecord;
}
