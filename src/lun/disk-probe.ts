import { UsageError } from '../base/errors.js';
import { LunFields } from '../bridge/lun-fields.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import { decodeReadCapacity10, decodeReadCapacity16 } from '../scsi/capacity.js';
import {
  writeInquiryCdb,
  writeReadCapacity10Cdb,
  writeReadCapacity16Cdb,
  writeReportLunsCdb,
  writeSynchronizeCacheCdb,
  writeTestUnitReadyCdb,
} from '../scsi/cdb.js';
import { type DiskFacts, DiskFactsProbe } from '../scsi/disk-facts.js';
import {
  DEVICE_TYPE_DISK,
  decodeInquiry,
  INQUIRY_BYTES_MIN,
  isManagementUnit,
} from '../scsi/inquiry.js';
import { decodeReportLuns, lunField } from '../scsi/lun.js';
import { parseSense } from '../scsi/sense.js';
import type { Attention, Verdict, VerdictAction } from '../scsi/sense-table.js';
import { replyToWords, verdictOfReply } from '../scsi/verdict.js';

const CDB_BYTES = 16;
/** A new session meets a queue of unit attentions: each is read once. */
const ATTENTIONS_MAX = 16;
const PAUSE_MS = 250;
const REPORT_LUNS_BYTES = 8 + 8 * 4096;

/** What asks questions of a target: commands over the session as it is now, and pauses. */
export interface ScsiExecutor {
  /** What the target reports goes here; absent where nobody keeps it. */
  readonly lunFields?: LunFields;
  /** Rejects with LinkError when the session is away, or the link goes before the answer. */
  execute(request: ScsiRequest): Promise<ScsiAnswer>;
  pause(ms: number): Promise<void>;
}

/** Told of what asks for attention, and whether the question failed (`fail`) or is asked again. */
export type AttentionHandler = (attention: Attention, action: VerdictAction) => void;

/** Asks a logical unit what it is. Unit attentions on the way are told to `onAttention`. */
export async function probeDisk(
  asker: ScsiExecutor,
  lun: number,
  onAttention: AttentionHandler,
): Promise<DiskFacts> {
  await clearAttentions(asker, lun, onAttention);
  return readFacts(asker, lun, onAttention);
}

/** Asks a logical unit what it is; `clearAttentions` comes before. */
export async function readFacts(
  asker: ScsiExecutor,
  lun: number,
  onAttention: AttentionHandler,
): Promise<DiskFacts> {
  const probe = new DiskFactsProbe();
  for (let query = probe.nextQuery(); query !== null; query = probe.nextQuery()) {
    const cdb = Buffer.alloc(CDB_BYTES);
    query.writeCdb(cdb);
    const length = query.allocationBytes;
    const answer = await asker.execute({
      lun,
      cdb,
      direction: length > 0 ? 'read' : 'none',
      length,
    });
    const verdict = probe.replyReceived(query, answer);
    if (verdict.attention !== null) onAttention(verdict.attention, verdict.action);
    if (verdict.action === 'retryAfterDelay') await asker.pause(PAUSE_MS);
  }
  return probe.facts();
}

export function testUnitReady(lun: number): ScsiRequest {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeTestUnitReadyCdb(cdb);
  return { lun, cdb, direction: 'none', length: 0 };
}

/** SYNCHRONIZE CACHE of the whole disk. */
export function synchronizeCache(lun: number): ScsiRequest {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeSynchronizeCacheCdb(cdb, 0, 0);
  return { lun, cdb, direction: 'none', length: 0 };
}

/** What a unit said last to TEST UNIT READY; the words have the codes. */
export type Readiness = Pick<Verdict, 'action' | 'attention' | 'words'>;

/** TEST UNIT READY until nothing new is reported; INQUIRY alone would leave attentions pending. */
export async function clearAttentions(
  asker: ScsiExecutor,
  lun: number,
  onAttention: AttentionHandler,
): Promise<Readiness> {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await asker.execute(testUnitReady(lun));
    const { action, attention } = judged(answer, onAttention);
    const isLast = action === 'success' || action === 'fail' || action === 'away';
    if (isLast || attempt === ATTENTIONS_MAX) {
      return { action, attention, words: replyToWords(answer.status, parseSense(answer.sense)) };
    }
    if (action === 'retryAfterDelay') await asker.pause(PAUSE_MS);
  }
}

function judged(answer: ScsiAnswer, onAttention: AttentionHandler): Verdict {
  const verdict = verdictOfReply(answer);
  if (verdict.attention !== null) onAttention(verdict.attention, verdict.action);
  return verdict;
}

const CAPACITY_QUERIES = [
  {
    bytes: 32,
    writeCdb: (cdb: Buffer) => writeReadCapacity16Cdb(cdb, 32),
    decode: decodeReadCapacity16,
  },
  { bytes: 8, writeCdb: writeReadCapacity10Cdb, decode: decodeReadCapacity10 },
] as const;

/**
 * Blocks the unit has now; null where it does not tell, as when it asks for attention first.
 * Rejects with LinkError as `execute`, with ScsiDataError for a malformed answer.
 */
export async function readBlockCount(
  asker: ScsiExecutor,
  lun: number,
  onAttention: AttentionHandler,
): Promise<number | null> {
  for (const { bytes, writeCdb, decode } of CAPACITY_QUERIES) {
    const cdb = Buffer.alloc(CDB_BYTES);
    writeCdb(cdb);
    const answer = await asker.execute({ lun, cdb, direction: 'read', length: bytes });
    const { action } = judged(answer, onAttention);
    if (action === 'success') return decode(answer.data)?.blockCount ?? null;
    // Old disks know the short form only.
    if (action !== 'fail') return null;
  }
  return null;
}

/**
 * The plain LUN numbers a target reports, in its order; `asker.lunFields` learns their fields. LUN
 * 0 itself may be one that was reported with another field; the question goes to eight zero bytes.
 */
export async function reportLuns(asker: ScsiExecutor): Promise<number[]> {
  for (let attempt = 0; ; attempt += 1) {
    const cdb = Buffer.alloc(CDB_BYTES);
    writeReportLunsCdb(cdb, REPORT_LUNS_BYTES);
    const answer = await asker.execute({
      lun: 0,
      field: lunField(0),
      cdb,
      direction: 'read',
      length: REPORT_LUNS_BYTES,
    });
    const verdict = verdictOfReply(answer);
    if (verdict.action === 'success') {
      return (asker.lunFields ?? new LunFields()).reported(decodeReportLuns(answer.data).luns);
    }
    const isFinal = verdict.action === 'fail' || verdict.action === 'away';
    if (isFinal || attempt >= ATTENTIONS_MAX) {
      throw new UsageError(`the target does not say which LUNs it has: ${verdict.words}`, {
        exitCode: 1,
        code: 'ERR_REPORT_LUNS',
      });
    }
    if (verdict.action === 'retryAfterDelay') await asker.pause(PAUSE_MS);
  }
}

export type FoundDisk = {
  readonly lun: number;
  readonly facts: DiskFacts;
  /** The LUN's field as 16 hex digits; absent: the usual one of its number. */
  readonly field?: string | undefined;
};

/**
 * The disks to serve: the wanted LUNs, each of which has to be a disk, or every disk there is.
 * Throws UsageError with exit code 21 when there is none.
 */
export async function requireDisks(
  asker: ScsiExecutor,
  wanted: readonly number[] | null,
): Promise<FoundDisk[]> {
  const reported = await reportLuns(asker);
  const disks: FoundDisk[] = [];
  for (const lun of wanted ?? reported) {
    if (!reported.includes(lun)) throw noSuchLun(lun, reported);
    const kind = await unitKind(asker, lun);
    if (kind !== 'disk') {
      if (wanted === null) continue;
      throw noDisk(`LUN ${lun} ${NO_DISK[kind]}; \`iscsi-nbd luns\` shows what each LUN is`);
    }
    disks.push(await findDisk(asker, lun));
  }
  if (disks.length === 0) {
    throw noDisk('The target has no disk for this initiator; map one to it at the target');
  }
  return disks;
}

/** The disks among LUNs that were reported; what is none is left out. */
export async function probeLuns(
  asker: ScsiExecutor,
  luns: readonly number[],
): Promise<FoundDisk[]> {
  const disks: FoundDisk[] = [];
  for (const lun of luns) {
    if ((await unitKind(asker, lun)) !== 'disk') continue;
    disks.push(await findDisk(asker, lun));
  }
  return disks;
}

/** What is read here and what is written later go to the same field. */
async function findDisk(asker: ScsiExecutor, lun: number): Promise<FoundDisk> {
  asker.lunFields?.fix(lun);
  const facts = await probeDisk(asker, lun, () => undefined);
  const field = asker.lunFields?.hexOf(lun);
  return field === undefined ? { lun, facts } : { lun, facts, field };
}

type UnitKind = 'disk' | keyof typeof NO_DISK;

const NO_DISK = {
  management:
    'is the management LUN of a disk array ("Universal Xport"), which holds no data of yours',
  other: 'is no disk',
} as const;

async function unitKind(asker: ScsiExecutor, lun: number): Promise<UnitKind> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeInquiryCdb(cdb, null, INQUIRY_BYTES_MIN);
  const answer = await asker.execute({ lun, cdb, direction: 'read', length: INQUIRY_BYTES_MIN });
  const isDisk = answer.status === 0 && ((answer.data[0] ?? 0x1f) & 0x1f) === DEVICE_TYPE_DISK;
  if (!isDisk) return 'other';
  // Of too short an answer the facts will tell.
  if (answer.data.length < INQUIRY_BYTES_MIN) return 'disk';
  return isManagementUnit(decodeInquiry(answer.data)) ? 'management' : 'disk';
}

function noSuchLun(lun: number, reported: readonly number[]): UsageError {
  const has = reported.length === 0 ? 'none' : reported.join(', ');
  return noDisk(`The target has no LUN ${lun} for this initiator; it reports: ${has}`);
}

function noDisk(message: string): UsageError {
  return new UsageError(message, { exitCode: 21, code: 'ERR_NO_LUN' });
}
