import { ScsiError } from '../base/errors.js';
import type { ScsiRequest } from '../config/contract.js';
import { CDB_BYTES, type ScsiExecutor } from '../lun/disk-probe.js';
import { writeReadCdb } from '../scsi/cdb.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { parseSense, SenseKey } from '../scsi/sense.js';
import { ScsiStatus } from '../scsi/status.js';
import { replyToWords } from '../scsi/verdict.js';
import type { DiskCheck, ReadSpeed } from './check-report.js';

const SIZES_BYTES = [4 << 10, 256 << 10] as const;
const MEASURE_MS = 500;
const IN_FLIGHT = 8;
const BUSY_PAUSE_MS = 10;
/** Reads of one measurement, at most. */
const READS_MAX = 100_000;
/** Positions that are spread evenly whatever their number: the fraction of the golden section. */
const SPREAD = 0.618_033_988_749_895;

/** Reads all over the disk, for half a second with each size. */
export async function measureReads(
  asker: ScsiExecutor,
  lun: number,
  facts: DiskFacts,
): Promise<Pick<DiskCheck, 'speed' | 'speedError'>> {
  const speed: ReadSpeed[] = [];
  try {
    for (const sizeBytes of SIZES_BYTES) speed.push(await measure(asker, lun, facts, sizeBytes));
    return { speed, speedError: null };
  } catch (error) {
    if (!(error instanceof ScsiError)) throw error;
    return { speed, speedError: error.message };
  }
}

async function measure(
  asker: ScsiExecutor,
  lun: number,
  facts: DiskFacts,
  wishedBytes: number,
): Promise<ReadSpeed> {
  const { blockSizeBytes, blockCount, limits } = facts;
  const wished = Math.max(1, Math.floor(wishedBytes / blockSizeBytes));
  const blocks = Math.min(wished, limits.maxTransferBlocks, blockCount);
  const places = Math.max(1, Math.floor(blockCount / blocks));
  const inFlight = facts.commandQueuing ? IN_FLIGHT : 1;
  const latenciesMs: number[] = [];
  const startedAtMs = performance.now();
  let begun = 0;
  const worker = async () => {
    while (performance.now() - startedAtMs < MEASURE_MS && begun < READS_MAX) {
      const place = Math.floor(((begun * SPREAD) % 1) * places);
      begun += 1;
      const sentAtMs = performance.now();
      const request = requestOf(lun, { lba: place * blocks, blocks, blockSizeBytes });
      if (await isRead(asker, request)) latenciesMs.push(performance.now() - sentAtMs);
      else await asker.pause(BUSY_PAUSE_MS);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  const seconds = (performance.now() - startedAtMs) / 1000;
  const reads = latenciesMs.length;
  const sizeBytes = blocks * blockSizeBytes;
  return {
    sizeBytes,
    inFlight,
    reads,
    readsPerSecond: Math.round(reads / seconds),
    bytesPerSecond: Math.round((reads * sizeBytes) / seconds),
    medianMs: medianOf(latenciesMs),
  };
}

function requestOf(
  lun: number,
  range: { readonly lba: number; readonly blocks: number; readonly blockSizeBytes: number },
): ScsiRequest {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeReadCdb(cdb, range.lba, range.blocks);
  return { lun, cdb, direction: 'read', length: range.blocks * range.blockSizeBytes };
}

/** False for an answer after which another read may work. Throws ScsiError for a failure. */
async function isRead(asker: ScsiExecutor, request: ScsiRequest): Promise<boolean> {
  const { status, sense } = await asker.execute(request);
  if (status === ScsiStatus.good) return true;
  const parsed = parseSense(sense);
  const { senseKey, asc, ascq } = parsed;
  const isBusy = status === ScsiStatus.busy || status === ScsiStatus.taskSetFull;
  if (isBusy || senseKey === SenseKey.unitAttention) return false;
  const words = `a read failed: ${replyToWords(status, parsed)}`;
  throw new ScsiError(words, { status, senseKey, asc, ascq });
}

/** In milliseconds, three digits after the point; 0 without values. */
export function medianOf(valuesMs: readonly number[]): number {
  const sorted = [...valuesMs].sort((left, right) => left - right);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
  return Math.round(middle * 1000) / 1000;
}
