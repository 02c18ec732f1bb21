import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errnoOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { writeFileAtomically } from '../io/atomic-file.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { LossRecord } from '../lun/loss-record.js';
import { factsSchema, lunFieldSchema, portalGroupSchema } from '../session/identity-store.js';

/** Far more sessions than one daemon is made for; what lies beyond is not read. */
const RECORDS_MAX = 4096;
const RECORD_BYTES_MAX = 4 << 20;

const recordSchema = z.strictObject({
  version: z.literal(1),
  sessionId: z.string().regex(/^[0-9a-f]{16}$/),
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  /** Logged in again at every start; others only after a crash in the same boot. */
  persistent: z.boolean(),
  /** A session is established or being established, so that its devices may wait for us. */
  active: z.boolean(),
  /** The process before left its devices with all that it had acknowledged on the disks. */
  handedOver: z.boolean().optional(),
  /** But for these: their disks were away, so that nobody knows. */
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
  disks: z.array(
    z.strictObject({ lun: z.number().int(), facts: factsSchema, field: lunFieldSchema }),
  ),
  /** Of the session that the devices were made in. */
  portalGroupTag: portalGroupSchema,
});

type ParsedRecord = z.output<typeof recordSchema>;
export type SessionRecord = Readonly<Omit<ParsedRecord, 'disks'>> & {
  readonly disks: readonly FoundDisk[];
};

/** What one daemon has one session of. */
export type SessionKey = Pick<SessionRecord, 'initiatorName' | 'targetName' | 'sessionType'>;

export function keyText(key: SessionKey): string {
  return JSON.stringify([key.initiatorName, key.targetName, key.sessionType]);
}

/** Where it is now, and why it is not used. */
export type BrokenRecord = { readonly path: string; readonly reason: string };

/** The daemon's sessions on disk, one file each, written before what they say is relied on. */
export class SessionRecords {
  readonly #directory: string;
  /** The last write of each path: writes of one record go on in their order. */
  readonly #writes = new Map<string, Promise<void>>();

  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, 'logins');
  }

  /**
   * Every record. A broken one is set aside as `<name>.broken` and told of, never fatal. One that
   * the system does not let us read now (too many open files, say) is told of and stays: it may be
   * a good one.
   */
  async load(): Promise<{ records: SessionRecord[]; broken: BrokenRecord[] }> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const names = (await readdir(this.#directory)).filter((name) => name.endsWith('.json'));
    const records: SessionRecord[] = [];
    const broken: BrokenRecord[] = [];
    for (const name of names.sort().slice(0, RECORDS_MAX)) {
      const path = join(this.#directory, name);
      try {
        const record = await readRecord(path);
        if (this.#pathOf(record) !== path) throw new Error('its name is not that of its session');
        records.push(record);
      } catch (error) {
        // A logout may have removed it since the directory was read.
        if (errnoOf(error) === 'ENOENT') continue;
        const reason = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
        const isSetAside = errnoOf(error) === '' && (await isRenamed(path, `${path}.broken`));
        broken.push({ path: isSetAside ? `${path}.broken` : path, reason });
      }
    }
    return { records, broken };
  }

  /** The record of a session; null without one, or with a broken one. Throws UsageError 1. */
  async find(key: SessionKey): Promise<SessionRecord | null> {
    const path = this.#pathOf(key);
    try {
      return await readRecord(path);
    } catch (error) {
      const code = errnoOf(error);
      if (code === '' || code === 'ENOENT') return null;
      // Whoever took it for none would write another identity over it.
      throw unusable(path, code, error);
    }
  }

  /** Throws UsageError 1 when the system does not take it: the disk is full, say. */
  save(record: SessionRecord): Promise<void> {
    const path = this.#pathOf(record);
    const text = `${JSON.stringify(record)}\n`;
    return this.#inOrder(path, () => writeFileAtomically(path, text));
  }

  remove(key: SessionKey): Promise<void> {
    const path = this.#pathOf(key);
    return this.#inOrder(path, () => rm(path, { force: true }));
  }

  /** Where the session of the record writes down what its disks have lost. */
  lossesOf(record: SessionRecord, onFailure: (message: string) => void): LossRecord {
    const path = this.#pathOf(record).replace(/\.json$/, '.lost');
    return new LossRecord({ path, sessionId: record.sessionId, onFailure });
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

  #pathOf(key: SessionKey): string {
    const digest = createHash('sha256').update(keyText(key)).digest('hex');
    return join(this.#directory, `${digest.slice(0, 24)}.json`);
  }
}

async function readRecord(path: string): Promise<SessionRecord> {
  const found = await stat(path);
  // A FIFO would be read for ever.
  if (!found.isFile()) throw new Error('it is not a regular file');
  if (found.size > RECORD_BYTES_MAX) throw new Error(`it has ${found.size} bytes`);
  const text = await readFile(path, 'utf8');
  return recordSchema.parse(JSON.parse(text)) as unknown as SessionRecord;
}

function isRenamed(from: string, to: string): Promise<boolean> {
  return rename(from, to).then(
    () => true,
    () => false,
  );
}

function unusable(path: string, code: string, cause: unknown): UsageError {
  return new UsageError(
    `The login record ${path} cannot be read or written (${code}). Make room or give access ` +
      'there, and try again.',
    { cause, exitCode: EXIT_CODES.error.code, code: 'ERR_STATE_RECORD' },
  );
}
