import { createHash } from 'node:crypto';
import { readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { UsageError } from '../base/errors.js';
import { stateDirectoryOf } from '../config/initiator-name.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import { IdentityLock } from '../io/identity-lock.js';
import type { SessionIdentity } from '../iscsi/session/session-config.js';
import { devicesOf } from '../lun/device-identifier.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { LossRecord } from '../lun/loss-record.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { bootIdentity, newIdentity } from './session-identity.js';

/** Checked as far as a take-over relies on it; whether it is the same disk the gate decides. */
export const factsSchema = z.looseObject({
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

/** The LUN's field; absent: the usual one of its number. */
export const lunFieldSchema = z
  .string()
  .regex(/^[0-9a-f]{16}$/)
  .optional();

export const portalGroupSchema = z.number().int().min(0).max(0xffff).optional();

const recordSchema = z.object({
  version: z.literal(1),
  sessionId: z.string().regex(/^[0-9a-f]{16}$/),
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  targetName: z.string(),
  /** The process that has the session, for people. */
  pid: z.number().int(),
  disks: z.array(z.object({ lun: z.number().int(), facts: factsSchema, field: lunFieldSchema })),
  /** Of the session that the devices were made in. */
  portalGroupTag: portalGroupSchema,
  /** The process that had it has ended on purpose, but the target was not there to hear of it. */
  ended: z.literal(true).optional(),
});
type IdentityRecord = z.infer<typeof recordSchema>;

/** What has the same identity at its next start, unless the target has seen it log out. */
type IdentityKey = {
  readonly initiatorName: string;
  readonly targetName: string;
  readonly luns: readonly number[] | null;
  /** Of a session that is served on a socket: it has no devices. */
  readonly socketPath?: string;
  /** The identity is the same at every start of the machine, also without what was kept. */
  readonly isBoot?: boolean;
  readonly stateDirectory?: string;
};

/**
 * Identity of an attached or served session and the disks its devices were made of, kept in the
 * state directory before they are used, so that a process that is killed and started again is the
 * same session with the same devices: the target then ends what the one before has left there
 * (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)), late writes among it. One living
 * process at a time has a record.
 */
export class IdentityStore {
  readonly identity: SessionIdentity;
  /** Disks whose devices, made by a process before this one, wait for us. */
  readonly waiting: readonly FoundDisk[];
  /** A process before this one was killed in this boot of the machine: its clients may be there. */
  readonly isLeft: boolean;
  readonly losses: LossRecord;
  readonly #path: string;
  readonly #lock: IdentityLock;
  #record: IdentityRecord;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: {
    readonly path: string;
    readonly lock: IdentityLock;
    readonly record: IdentityRecord;
    readonly waiting: readonly FoundDisk[];
    readonly isLeft: boolean;
    readonly onWarning: (message: string) => void;
  }) {
    this.#path = options.path;
    this.#lock = options.lock;
    this.#record = options.record;
    this.waiting = options.waiting;
    this.isLeft = options.isLeft;
    this.losses = new LossRecord({
      path: lossesPathOf(options.path),
      sessionId: options.record.sessionId,
      onFailure: options.onWarning,
    });
    const { sessionId, isid, portalGroupTag } = options.record;
    const group = portalGroupTag === undefined ? {} : { portalGroupTag };
    this.identity = { sessionId, isid: Buffer.from(isid, 'hex'), ...group };
  }

  /** Throws UsageError 15 when a living process has this session. */
  static async open(
    key: IdentityKey,
    onWarning: (message: string) => void = () => undefined,
  ): Promise<IdentityStore> {
    const { initiatorName, targetName, luns: wanted, socketPath } = key;
    const text = JSON.stringify([initiatorName, targetName, socketPath ?? wanted]);
    const stateDirectory = key.stateDirectory ?? stateDirectoryOf(process.env);
    const directory = join(stateDirectory, socketPath === undefined ? 'sessions' : 'served');
    const name = createHash('sha256').update(text).digest('hex').slice(0, 24);
    const path = join(directory, `${name}.json`);
    const lock = await IdentityLock.take(path);
    if (lock === null) throw await ownedByAnother(path, targetName);
    try {
      if (socketPath !== undefined) await forgetOtherBoots(directory);
      const known = await readRecord(path);
      const luns = known === null ? [] : await devicesOf(known.sessionId);
      const fresh = key.isBoot === true ? bootIdentity(text) : newIdentity();
      const disks = known?.disks.filter((disk) => luns.includes(disk.lun)) ?? [];
      const record: IdentityRecord = {
        version: 1,
        sessionId: known?.sessionId ?? fresh.sessionId,
        isid: known?.isid ?? Buffer.from(fresh.isid).toString('hex'),
        targetName,
        pid: process.pid,
        disks,
        ...(disks.length === 0 ? {} : { portalGroupTag: known?.portalGroupTag }),
      };
      await writeRecord(path, record);
      const waiting = record.disks as unknown as readonly FoundDisk[];
      const isLeft = known !== null && known.ended !== true;
      return new IdentityStore({ path, lock, record, waiting, isLeft, onWarning });
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Writes down what a device is, or is to be, made of; before the kernel is told. */
  keep(lun: number, facts: DiskFacts, portalGroupTag?: number, field?: string): Promise<void> {
    const others = this.#record.disks.filter((disk) => disk.lun !== lun);
    this.#record = {
      ...this.#record,
      disks: [...others, { lun, facts: { ...facts } as never, field }],
      ...(portalGroupTag === undefined ? {} : { portalGroupTag }),
    };
    const write = () => writeRecord(this.#path, this.#record);
    const written = this.#writing.then(write);
    this.#writing = written.catch(() => undefined);
    return written;
  }

  /**
   * The session is over. Devices that are still there keep its record for the next process. What
   * the target has not heard of may still be at work there: the next session takes its place.
   */
  async release(how: { readonly isLoggedOut: boolean } = { isLoggedOut: true }): Promise<void> {
    const left = await devicesOf(this.#record.sessionId);
    if (left.length === 0) {
      await this.#writing;
      this.losses.remove();
      if (how.isLoggedOut) await rm(this.#path, { force: true });
      else await this.#writeEnded();
    }
    await this.#lock.release();
  }

  /** The next session is another one in the same place. */
  async #writeEnded(): Promise<void> {
    const { sessionId } = newIdentity();
    const { portalGroupTag: _group, ...record } = this.#record;
    await writeRecord(this.#path, { ...record, sessionId, disks: [], ended: true });
  }
}

function lossesPathOf(path: string): string {
  return path.replace(/\.json$/, '.lost');
}

/** Records of sockets whose processes ended with the machine: nobody comes back to them. */
async function forgetOtherBoots(directory: string): Promise<void> {
  const bootedAtMs = Date.now() - uptime() * 1000;
  for (const name of await readdir(directory).catch(() => [])) {
    const path = join(directory, name);
    const found = await stat(path).catch(() => null);
    if (found !== null && found.mtimeMs < bootedAtMs) await rm(path, { force: true });
  }
}

async function readRecord(path: string): Promise<IdentityRecord | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch {
    // A record that cannot be read is set aside for a person to look at; it is never fatal.
    await rename(path, `${path}.broken`);
    return null;
  }
}

async function ownedByAnother(path: string, targetName: string): Promise<UsageError> {
  const record = await readRecord(path).catch(() => null);
  const who = record === null ? 'another process' : `process ${record.pid}`;
  const session = record === null ? '' : ` as session ${record.sessionId}`;
  return new UsageError(
    `${who} is already attached to these LUNs of ${targetName}${session}; stop it first, or use ` +
      'its device',
    { exitCode: 15, code: 'ERR_SESSION_EXISTS' },
  );
}

function writeRecord(path: string, record: IdentityRecord): Promise<void> {
  return writeFileAtomically(path, `${JSON.stringify(record)}\n`);
}
