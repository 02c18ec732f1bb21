import { createHash } from 'node:crypto';
import { readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { UsageError } from '../base/errors.js';
import { Turns } from '../base/turns.js';
import { stateDirectoryOf } from '../config/initiator-name.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import { currentBootId } from '../io/boot-id.js';
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
  /** Of the boot of the machine it was written in; records of versions before have none. */
  bootId: z.string().optional(),
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
  readonly losses: LossRecord;
  readonly #path: string;
  readonly #lock: IdentityLock;
  #record: IdentityRecord;
  readonly #isServed: boolean;
  readonly #onWarning: (message: string) => void;
  readonly #writes = new Turns();
  #released: Promise<void> | null = null;

  private constructor(options: {
    readonly path: string;
    readonly lock: IdentityLock;
    readonly record: IdentityRecord;
    readonly waiting: readonly FoundDisk[];
    readonly isServed: boolean;
    readonly isBroken: boolean;
    readonly onWarning: (message: string) => void;
  }) {
    this.#path = options.path;
    this.#lock = options.lock;
    this.#record = options.record;
    this.waiting = options.waiting;
    this.#isServed = options.isServed;
    this.#onWarning = options.onWarning;
    this.losses = new LossRecord({
      path: lossesPathOf(options.path),
      sessionId: options.record.sessionId,
      isOfAnySession: options.isBroken,
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
    const lock = await lockOf(path);
    if (lock === null) throw await ownedByAnother(path, targetName);
    try {
      const bootId = await currentBootId();
      const isServed = socketPath !== undefined;
      if (isServed) await forgetOtherBoots(directory, { bootId, ownPath: path });
      const { record: known, isBroken } = await recordOrWarning(path, onWarning);
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
        bootId,
        ...(disks.length === 0 ? {} : { portalGroupTag: known?.portalGroupTag }),
      };
      await writeRecord(path, record).catch((error: unknown) => {
        // What is written there already says all that the next process has to know.
        if (known === null) throw error;
        onWarning(notWritten(path, error));
      });
      const waiting = record.disks as unknown as readonly FoundDisk[];
      return new IdentityStore({ path, lock, record, waiting, isServed, isBroken, onWarning });
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
    return this.#writes.run(() => writeRecord(this.#path, this.#record));
  }

  /**
   * The session is over. Devices that are still there keep its record for the next process, and so
   * do clients of a socket who have not been told what their disk has lost, or whose acknowledged
   * writes could not be flushed. What the target has not heard of may still be at work there: the
   * next session takes its place. Called again it is the same release.
   */
  release(how: { readonly isLoggedOut: boolean } = { isLoggedOut: true }): Promise<void> {
    this.#released ??= this.#release(how);
    return this.#released;
  }

  async #release({ isLoggedOut }: { readonly isLoggedOut: boolean }): Promise<void> {
    const left = await devicesOf(this.#record.sessionId);
    try {
      await this.#writes.run(async () => {
        const isOver = left.length === 0 && !(this.#isServed && !this.losses.isEmpty);
        if (isOver) await this.#end(isLoggedOut);
      });
    } catch (error) {
      this.#onWarning(notWritten(this.#path, error));
    }
    await this.#lock.release();
  }

  async #end(isLoggedOut: boolean): Promise<void> {
    this.losses.remove();
    if (isLoggedOut) {
      await rm(this.#path, { force: true });
      return;
    }
    // The next session is another one in the same place.
    const { sessionId } = newIdentity();
    const { portalGroupTag: _group, ...record } = this.#record;
    await writeRecord(this.#path, { ...record, sessionId, disks: [] });
  }
}

function lossesPathOf(path: string): string {
  return path.replace(/\.json$/, '.lost');
}

/** How long another process may hold a lock to see whether a record is still somebody's. */
const LOCK_RETRY_MS = 200;

/** Null when a living process has the record. */
async function lockOf(path: string): Promise<IdentityLock | null> {
  const lock = await IdentityLock.take(path);
  if (lock !== null) return lock;
  await sleep(LOCK_RETRY_MS);
  return IdentityLock.take(path);
}

type Boot = { readonly bootId: string; readonly ownPath: string };

/** Records of sockets whose processes ended with the machine: nobody comes back to them. */
async function forgetOtherBoots(directory: string, { bootId, ownPath }: Boot): Promise<void> {
  const isOld = async (path: string) => {
    const record = await parsedRecord(path).catch(() => null);
    return record !== null && record.bootId !== undefined && record.bootId !== bootId;
  };
  for (const name of await readdir(directory).catch(() => [])) {
    const path = join(directory, name);
    if (!name.endsWith('.json') || !(await isOld(path))) continue;
    const lock = path === ownPath ? null : await IdentityLock.take(path);
    if (path !== ownPath && lock === null) continue;
    // Whoever had the lock until now may have made it a record of this boot.
    if (await isOld(path)) {
      await rm(lossesPathOf(path), { force: true }).catch(() => undefined);
      await rm(path, { force: true }).catch(() => undefined);
    }
    await lock?.release();
  }
}

/** Null without one. Rejects with what is wrong with it, or with what the system says. */
async function parsedRecord(path: string): Promise<IdentityRecord | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  return recordSchema.parse(JSON.parse(text));
}

type FoundRecord = { readonly record: IdentityRecord | null; readonly isBroken: boolean };

/** A record that cannot be read is set aside for a person to look at; it is never fatal. */
async function recordOrWarning(
  path: string,
  onWarning: (message: string) => void,
): Promise<FoundRecord> {
  try {
    return { record: await parsedRecord(path), isBroken: false };
  } catch (error) {
    if (error instanceof Error && 'syscall' in error) throw error;
    const isAway = await rename(path, `${path}.broken`).then(
      () => true,
      () => false,
    );
    onWarning(
      `the identity record ${path} is broken` +
        (isAway ? ` and is now ${path}.broken: ` : ': ') +
        'the target does not end what the process before has left there',
    );
    return { record: null, isBroken: true };
  }
}

function notWritten(path: string, error: unknown): string {
  if (!(error instanceof Error) || !('syscall' in error)) throw error;
  return `the identity record ${path} cannot be written and stays as it is (${error.message})`;
}

async function ownedByAnother(path: string, targetName: string): Promise<UsageError> {
  const record = await parsedRecord(path).catch(() => null);
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
