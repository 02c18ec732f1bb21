import type { ScsiError } from '../base/errors.js';
import type { LunFields } from '../bridge/lun-fields.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import { decodeReadCapacity10, decodeReadCapacity16 } from '../scsi/capacity.js';
import {
  writeReadCapacity10Cdb,
  writeReadCapacity16Cdb,
  writeSynchronizeCacheCdb,
  writeTestUnitReadyCdb,
} from '../scsi/cdb.js';
import { type DiskFacts, DiskFactsProbe } from '../scsi/disk-facts.js';
import { parseSense } from '../scsi/sense.js';
import type { Attention, Verdict, VerdictAction } from '../scsi/sense-table.js';
import { replyToWords, verdictOfReply } from '../scsi/verdict.js';

export const CDB_BYTES = 16;
/** A new session meets a queue of unit attentions: each is read once. */
const ATTENTIONS_MAX = 16;
const PAUSE_MS = 250;

/** What asks questions of a target: commands over the session as it is now, and pauses. */
export interface ScsiExecutor {
  /** What the target reports goes here; absent if it is not kept. */
  readonly lunFields?: LunFields;
  /** Rejects with LinkError when the session is away, or the link goes before the answer. */
  execute(request: ScsiRequest): Promise<ScsiAnswer>;
  pause(ms: number): Promise<void>;
}

/** Told of what asks for attention, and whether the question failed (`fail`) or is asked again. */
export type AttentionHandler = (attention: Attention, action: VerdictAction) => void;

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
    const isLater = verdict.action === 'retryAfterDelay' || verdict.action === 'away';
    if (isLater) await asker.pause(PAUSE_MS);
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

/** What a unit said last; the words have the codes. */
export type Readiness = Pick<Verdict, 'action' | 'attention' | 'words'> & {
  /** The status byte, and the sense key with its codes, for a ScsiError. */
  readonly codes: ConstructorParameters<typeof ScsiError>[1];
};

/** TEST UNIT READY until nothing new is reported; INQUIRY alone would leave attentions pending. */
export function clearAttentions(
  asker: ScsiExecutor,
  lun: number,
  onAttention: AttentionHandler,
): Promise<Readiness> {
  return askPatiently(asker, testUnitReady(lun), onAttention);
}

/** One command until its answer is final, or has been another one often enough. */
export async function askPatiently(
  asker: ScsiExecutor,
  request: ScsiRequest,
  onAttention: AttentionHandler = () => undefined,
): Promise<Readiness & { readonly data: Buffer }> {
  for (let attempt = 1; ; attempt += 1) {
    const { status, sense, data } = await asker.execute(request);
    const { action, attention } = judged({ status, sense, data }, onAttention);
    const isLast = action === 'success' || action === 'fail' || action === 'away';
    if (isLast || attempt === ATTENTIONS_MAX) {
      const parsed = parseSense(sense);
      const { senseKey, asc, ascq } = parsed;
      const words = replyToWords(status, parsed);
      return { action, attention, words, data, codes: { status, senseKey, asc, ascq } };
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

export type FoundDisk = {
  readonly lun: number;
  readonly facts: DiskFacts;
  /** The LUN's field as 16 hex digits; absent: the usual one of its number. */
  readonly field?: string | undefined;
};
