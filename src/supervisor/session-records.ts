import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as z from 'zod';
import { errnoOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import { currentBootId } from '../io/boot-id.js';
import { ProcessLock } from '../io/process-lock.js';
import { LossRecord } from '../lun/loss-record.js';
import { loggedOut } from './record-identity.js';
import {
  keyText,
  parseRecord,
  type SessionKey,
  type SessionRecord,
  type SessionSubject,
} from './session-record.js';

/** Far more sessions than one daemon is made for; what lies beyond is not read. */
const RECORDS_MAX = 4096;
/** What is larger is neither written nor read: 256 LUNs with 64 KiB of identifiers each. */
const RECORD_BYTES_MAX = 16 << 20;

/** Where it is now, and why it is not used. */
export type BrokenRecord = { readonly path: string; readonly reason: string };

/** Logins of a daemon; sessions of `attach`; sessions of `serve`. */
export type RecordsFolder = 'logins' | 'sessions' | 'served';

/** Sessions on disk, one file each, written before what they say is relied on. */
export class SessionRecords {
  readonly #directory: string;
  /** The last write of each path: writes of one record go on in their order. */
  readonly #writes = new Map<string, Promise<void>>();
  /** Records that were set aside: what their sessions had lost is still the next one's. */
  readonly #broken = new Set<string>();

  constructor(stateDirectory: string, folder: RecordsFolder = 'logins') {
    this.#directory = join(stateDirectory, folder);
  }

  /**
   * Every login. A broken record is renamed to `<name>.broken` and reported, never fatal. A record
   * that the system does not let us read now (too many open files, say) is reported and stays: it
   * may be a good one.
   */
  async load(): Promise<{ records: SessionRecord[]; broken: BrokenRecord[] }> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const records: SessionRecord[] = [];
    const broken: BrokenRecord[] = [];
    for (const path of await this.#paths()) {
      try {
        const record = await readRecord(path, null);
        if (this.pathOf(record) !== path) throw new Error('its name is not that of its session');
        records.push(record);
      } catch (error) {
        // A logout may have removed it since the directory was read.
        if (errnoOf(error) === 'ENOENT') continue;
        broken.push(await this.#setAside(path, error));
      }
    }
    return { records, broken };
  }

  /**
   * The record of a session; null without one. A broken one is set aside and told of, and is none.
   * Throws UsageError 1 when the system does not let us read it.
   */
  async find(
    subject: SessionSubject,
    onBroken: (broken: BrokenRecord) => void = () => undefined,
  ): Promise<SessionRecord | null> {
    const path = this.pathOf(subject);
    try {
      return await readRecord(path, subject);
    } catch (error) {
      const code = errnoOf(error);
      if (code === 'ENOENT') return null;
      // A caller that took it for a missing one would write another identity over it.
      if (code !== '') throw unusable(path, code, error);
      onBroken(await this.#setAside(path, error));
      return null;
    }
  }

  /** The record of a session that another process has, as far as it can be read. */
  peek(subject: SessionSubject): Promise<SessionRecord | null> {
    return readRecord(this.pathOf(subject), subject).catch(() => null);
  }

  /** Throws UsageError 1 when the system does not take it: the disk is full, say. */
  async save(record: SessionRecord): Promise<void> {
    const path = this.pathOf(record);
    const text = `${JSON.stringify(record)}\n`;
    if (Buffer.byteLength(text) > RECORD_BYTES_MAX) throw tooLarge(path, record);
    return this.#inOrder(path, () => writeFileAtomically(path, text));
  }

  /**
   * The same, but if the system refuses the write and the record that is there has all that a next
   * process has to know, the error goes to `warn` instead.
   */
  async saveOrKeep(record: SessionRecord, warn: (message: string) => void): Promise<void> {
    const path = this.pathOf(record);
    try {
      await this.save(record);
    } catch (error) {
      const { cause } = error as Error;
      const kept = await readRecord(path, null).catch(() => null);
      if (!(cause instanceof Error) || kept === null || !isCovered(record, kept)) throw error;
      warn(`the session record ${path} cannot be written and stays as it is (${cause.message})`);
    }
  }

  remove(key: SessionKey): Promise<void> {
    const path = this.pathOf(key);
    return this.#inOrder(path, () => rm(path, { force: true }));
  }

  /** The session is logged out: what the next one of its key has to know stays. */
  loggedOut(record: SessionRecord, how: { readonly hasGhosts: boolean }): Promise<void> {
    if (!record.persistent && !how.hasGhosts) return this.remove(record);
    return this.save(loggedOut(record, how));
  }

  /** Where the session of the record writes down what its disks have lost. */
  lossesOf(record: SessionRecord, onFailure: (message: string) => void): LossRecord {
    const path = this.pathOf(record);
    return new LossRecord({
      path: lossesPathOf(path),
      sessionId: record.sessionId,
      isOfAnySession: this.#broken.delete(path),
      onFailure,
    });
  }

  /**
   * Removes the records of sessions whose processes ended with the machine, with what their disks
   * had lost: no client comes back to them. A living process holds the lock of its record.
   */
  async forgetOtherBoots(bootId: string, own: SessionKey): Promise<void> {
    const ownPath = this.pathOf(own);
    const isOld = async (path: string) => {
      const found = await bootIdOf(path).catch(() => undefined);
      return found !== undefined && found !== bootId;
    };
    for (const path of await this.#paths().catch(() => [])) {
      if (!(await isOld(path))) continue;
      const lock = path === ownPath ? null : ProcessLock.take(path);
      if (path !== ownPath && lock === null) continue;
      // The process that had the lock until now may have made it a record of this boot.
      if (await isOld(path)) {
        await rm(lossesPathOf(path), { force: true }).catch(() => undefined);
        await rm(path, { force: true }).catch(() => undefined);
      }
      lock?.release();
    }
  }

  pathOf(key: SessionKey): string {
    const digest = createHash('sha256').update(keyText(key)).digest('hex');
    return join(this.#directory, `${digest.slice(0, 24)}.json`);
  }

  async #paths(): Promise<string[]> {
    const names = (await readdir(this.#directory)).filter((name) => name.endsWith('.json'));
    return names
      .sort()
      .slice(0, RECORDS_MAX)
      .map((name) => join(this.#directory, name));
  }

  async #setAside(path: string, error: unknown): Promise<BrokenRecord> {
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    const aside = `${path}.broken`;
    const isAside = errnoOf(error) === '' && (await isRenamed(path, aside));
    if (errnoOf(error) === '') this.#broken.add(path);
    return { path: isAside ? aside : path, reason };
  }

  #inOrder(path: string, write: () => Promise<void>): Promise<void> {
    const before = this.#writes.get(path) ?? Promise.resolve();
    const written = before
      .catch(() => undefined)
      .then(write)
      .catch((error: unknown) => {
        const code = errnoOf(error);
        throw code === '' ? error : unusable(path, code, error);
      });
    this.#writes.set(path, written);
    const forget = () => {
      if (this.#writes.get(path) === written) this.#writes.delete(path);
    };
    written.then(forget, forget);
    return written;
  }
}

async function readRecord(path: string, subject: SessionSubject | null): Promise<SessionRecord> {
  const bootId = await currentBootId();
  return parseRecord(await readJson(path), { subject, bootId });
}

async function bootIdOf(path: string): Promise<string | undefined> {
  return z.looseObject({ bootId: z.string().optional() }).parse(await readJson(path)).bootId;
}

async function readJson(path: string): Promise<unknown> {
  const found = await stat(path);
  // A FIFO would be read for ever.
  if (!found.isFile()) throw new Error('it is not a regular file');
  if (found.size > RECORD_BYTES_MAX) throw new Error(`it has ${found.size} bytes`);
  return JSON.parse(await readFile(path, 'utf8'));
}

function lossesPathOf(path: string): string {
  return path.replace(/\.json$/, '.lost');
}

function isRenamed(from: string, to: string): Promise<boolean> {
  return rename(from, to).then(
    () => true,
    () => false,
  );
}

/** The session and its options are the same, and no disk is new. */
function isCovered(record: SessionRecord, kept: SessionRecord): boolean {
  return (
    kept.sessionId === record.sessionId &&
    kept.isid === record.isid &&
    kept.persistent === record.persistent &&
    isDeepStrictEqual(optionsOf(kept), optionsOf(record)) &&
    record.disks.every(({ lun }) => kept.disks.some((disk) => disk.lun === lun))
  );
}

/** As they are written; the initiator's name stands beside them as well. */
function optionsOf({ options, initiatorName }: SessionRecord): unknown {
  return JSON.parse(JSON.stringify({ ...options, initiatorName }));
}

function tooLarge(path: string, { disks }: SessionRecord): UsageError {
  return new UsageError(
    `The session record ${path} would be larger than ${RECORD_BYTES_MAX >> 20} MiB with its ` +
      `${disks.length} disks. Name those that are needed with --luns.`,
    { exitCode: EXIT_CODES.error.code, code: 'ERR_STATE_RECORD' },
  );
}

function unusable(path: string, code: string, cause: unknown): UsageError {
  return new UsageError(
    `The session record ${path} cannot be read or written (${code}). Make room or give access ` +
      'there, and try again.',
    { cause, exitCode: EXIT_CODES.error.code, code: 'ERR_STATE_RECORD' },
  );
}
