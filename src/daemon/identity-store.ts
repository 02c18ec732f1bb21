import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { UsageError } from '../base/errors.js';
import { whyAnotherDisk } from '../bridge/identity-gate.js';
import { listConfigured } from '../io/nbd-sysfs.js';
import type { SessionIdentity } from '../iscsi/session-config.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { FoundDisk } from './disk-probe.js';
import { stateDirectoryOf } from './initiator-name.js';
import { newIdentity } from './session-identity.js';

const recordSchema = z.object({
  version: z.literal(1),
  sessionId: z.string().regex(/^[0-9a-f]{16}$/),
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  targetName: z.string(),
  /** Process that owns the session, and when it was started (clock ticks since boot). */
  owner: z.object({ pid: z.number().int(), startTicks: z.string() }),
  disks: z.array(z.object({ lun: z.number().int(), facts: z.unknown() })),
});
type IdentityRecord = z.infer<typeof recordSchema>;

/**
 * Identity of an attached session, kept in the state directory before it is used, so that a process
 * that is killed and started again is the same session with the same devices. One living process
 * at a time owns a record.
 */
export class IdentityStore {
  readonly identity: SessionIdentity;
  /** Devices of this session wait for us. */
  readonly isTakeover: boolean;
  readonly #path: string;
  #record: IdentityRecord;

  private constructor(path: string, record: IdentityRecord, isTakeover: boolean) {
    this.#path = path;
    this.#record = record;
    this.isTakeover = isTakeover;
    this.identity = { sessionId: record.sessionId, isid: Buffer.from(record.isid, 'hex') };
  }

  /** Throws UsageError 15 when a living process has this session. */
  static async open(key: {
    readonly initiatorName: string;
    readonly targetName: string;
    readonly luns: readonly number[] | null;
  }): Promise<IdentityStore> {
    const text = JSON.stringify([key.initiatorName, key.targetName, key.luns]);
    const name = createHash('sha256').update(text).digest('hex').slice(0, 24);
    const path = join(stateDirectoryOf(process.env), 'sessions', `${name}.json`);
    const known = await readRecord(path);
    if (known !== null) await refuseLiving(known);
    const devices = known === null ? [] : await devicesOf(known.sessionId);
    const fresh = newIdentity();
    const isTakeover = known !== null && devices.length > 0;
    const record: IdentityRecord = {
      version: 1,
      sessionId: known?.sessionId ?? fresh.sessionId,
      isid: known?.isid ?? Buffer.from(fresh.isid).toString('hex'),
      targetName: key.targetName,
      owner: { pid: process.pid, startTicks: (await startTicksOf(process.pid)) ?? '' },
      disks: isTakeover ? (known?.disks ?? []) : [],
    };
    await writeRecord(path, record);
    return new IdentityStore(path, record, isTakeover);
  }

  /**
   * Before devices are taken over: their disks have to be those they were made of. Then the disks
   * are written down, for whoever comes after this process. Throws UsageError.
   */
  async checkDisks(disks: readonly FoundDisk[]): Promise<void> {
    for (const { lun, facts } of disks) {
      const known = this.#record.disks.find((disk) => disk.lun === lun);
      if (known === undefined) continue;
      const why = whyAnotherDisk(known.facts as DiskFacts, facts);
      if (why === null) continue;
      throw new UsageError(
        `LUN ${lun} is another disk than the one its device was made of: ${why}. Nothing was ` +
          'written. Disconnect the old device (`nbd-client -d`) if its data are given up.',
        { exitCode: 1, code: 'ERR_ANOTHER_DISK' },
      );
    }
    this.#record = { ...this.#record, disks: disks.map(({ lun, facts }) => ({ lun, facts })) };
    await writeRecord(this.#path, this.#record);
  }

  /** The session is over: the next one is another. */
  async release(): Promise<void> {
    const devices = await devicesOf(this.#record.sessionId);
    if (devices.length === 0) await rm(this.#path, { force: true });
  }
}

async function devicesOf(sessionId: string): Promise<readonly string[]> {
  const devices = await listConfigured();
  const prefix = `iscsi-nbd:${sessionId}:`;
  return devices.filter((device) => device.identifier.startsWith(prefix)).map((d) => d.path);
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

async function refuseLiving(record: IdentityRecord): Promise<void> {
  const { pid, startTicks } = record.owner;
  if (pid === process.pid || (await startTicksOf(pid)) !== startTicks) return;
  throw new UsageError(
    `process ${pid} is already attached to these LUNs of ${record.targetName} as session ` +
      `${record.sessionId}; stop it first, or use its device`,
    { exitCode: 15, code: 'ERR_SESSION_EXISTS' },
  );
}

/** Field 22 of /proc/PID/stat: a process number is used again, this pair is not. */
async function startTicksOf(pid: number): Promise<string | null> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

async function writeRecord(path: string, record: IdentityRecord): Promise<void> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(record)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
  const parent = await open(directory, 'r');
  await parent.sync().finally(() => parent.close());
}
