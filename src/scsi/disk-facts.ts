import { invariant, ScsiError } from '../base/errors.js';
import type { Capacity } from './capacity.js';
import { UNMAP_DESCRIPTORS_MAX } from './cdb.js';
import { logicalUnitIdentifiers } from './designator.js';
import {
  FACT_QUERIES,
  type FactQuery,
  type FoundFacts,
  nothingFound,
  type OptionalPart,
} from './fact-queries.js';
import { deviceTypeName, type InquiryData } from './inquiry.js';
import { ScsiDataError } from './response-data.js';
import { parseSense, type SenseData, SenseKey } from './sense.js';
import { isBecomingReady, type Verdict } from './sense-table.js';
import { replyToWords, verdictOf } from './verdict.js';

type DiskLimits = {
  /** Blocks one READ or WRITE may have; FFFFFFFFh where the device tells no limit. */
  readonly maxTransferBlocks: number;
  /** 0: not told; so for the next one. */
  readonly optimalTransferBlocks: number;
  readonly optimalGranularity: number;
  /** Blocks of one UNMAP command; FFFFFFFFh: no limit; 0: none. */
  readonly unmapLbaMax: number;
  readonly unmapDescriptorsMax: number;
  /** Blocks that are unmapped together, at least 1, and the first block of such a granule. */
  readonly unmapGranularity: number;
  readonly unmapAlignment: number;
  readonly writeSameBlocksMax: number;
};

/** All this product wants to know of a disk before it serves it. Plain data, fit for JSON. */
export type DiskFacts = {
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  /** VPD page 80h; empty without one. */
  readonly serial: string;
  /** Names of the logical unit from VPD page 83h, the most unique first. */
  readonly identifiers: readonly string[];
  readonly deviceType: number;
  /** A power of two, 512 … 65536. */
  readonly blockSizeBytes: number;
  readonly blockCount: number;
  /** A physical block has 2^n logical blocks. */
  readonly physicalBlockExponent: number;
  readonly readOnly: boolean;
  /** Writes are acknowledged from a volatile cache; false where the device does not tell. */
  readonly writeCacheEnabled: boolean;
  readonly dpoFua: boolean;
  /** False: one command at a time (CMDQUE and BQUE are 0). */
  readonly commandQueuing: boolean;
  readonly thin: {
    readonly unmap: boolean;
    /** WRITE SAME(16) with the UNMAP bit unmaps. */
    readonly writeSame16Unmap: boolean;
    /** Unmapped blocks read as zeros. */
    readonly readsZero: boolean;
  };
  readonly limits: DiskLimits;
  /** `null`: not told. */
  readonly rotational: boolean | null;
  /**
   * What an operator should know: optional answers that were malformed and so were taken as not
   * there, and what was assumed where the disk does not tell.
   */
  readonly notes: readonly string[];
  /**
   * Parts that the device has and could not tell now (reserved, busy, a failure): they are as if
   * there were none, the write cache as if it were volatile. Absent: none.
   */
  readonly unread?: readonly OptionalPart[];
};

/** Linux assumes the same (drivers/scsi/sd.c, "Assuming drive cache: write through"). */
export const CACHE_NOT_TOLD =
  'the disk has no caching mode page, so it does not tell whether its write cache is volatile; ' +
  'it counts as a disk without one: a flush that it refuses succeeds, and the loss of ' +
  'acknowledged writes in a power failure is not reported';

const CACHE_NOT_READ =
  'the mode pages cannot be read, so the disk counts as one with a volatile write cache';

export type FactReply = {
  /** SCSI status byte. */
  readonly status: number;
  /** Exactly the bytes that arrived. */
  readonly data: Buffer;
  /** Sense bytes; empty without any. */
  readonly sense: Buffer;
};

/** A new session meets a queue of unit attentions; more than this many is no way to begin. */
const ATTEMPTS_MAX = 10;
const BLOCK_BYTES_MIN = 512;
const BLOCK_BYTES_MAX = 65536;
const UINT32_MAX = 0xffff_ffff;
/** Assumed where the device tells no maximum for WRITE SAME: what the (10) form can express. */
const WRITE_SAME_BLOCKS_ASSUMED = 0xffff;

/**
 * Gathers the facts of one logical unit. The caller sends `nextQuery()` until it is null and
 * hands each answer to `replyReceived`; a query that has to be sent again stays the next one.
 */
export class DiskFactsProbe {
  readonly #found: FoundFacts = nothingFound();
  readonly #notes: string[] = [];
  readonly #unread = new Set<OptionalPart>();
  #index = 0;
  #attempts = 0;

  /** Standard INQUIRY data once they arrived; shows what the unit is if it is not a disk. */
  get inquiry(): InquiryData | null {
    return this.#found.inquiry;
  }

  /** The query to send now, or null when all have been answered. */
  nextQuery(): FactQuery | null {
    for (; this.#index < FACT_QUERIES.length; this.#index += 1) {
      const query = FACT_QUERIES[this.#index];
      if (query?.isWanted(this.#found)) return query;
    }
    return null;
  }

  /**
   * Takes the answer to the query `nextQuery` gave. The verdict tells the caller whether to wait
   * (`retryAfterDelay`) or to act (`attention`) before the next one. Throws ScsiError where the
   * unit refuses for good, ScsiDataError where a needed answer is malformed.
   */
  replyReceived(query: FactQuery, reply: FactReply): Verdict {
    invariant(query === this.nextQuery(), `${query.name} is not the query that is due`);
    const sense = parseSense(reply.sense);
    const verdict = verdictOf(reply.status, sense);
    if (verdict.action === 'success') {
      this.#decode(query, reply.data);
      this.#advance();
      return verdict;
    }
    this.#attempts += 1;
    const isWorthATry = verdict.action !== 'fail' && !isGone(verdict);
    if (isWorthATry && this.#attempts < ATTEMPTS_MAX) return verdict;
    if (query.part === null || verdict.attention === 'lunGone') {
      throw refused(query, reply.status, sense);
    }
    // ILLEGAL REQUEST is the answer of a device that has no such thing.
    if (sense.senseKey !== SenseKey.illegalRequest) this.#notRead(query.part, query, reply);
    this.#advance();
    return { ...verdict, action: 'fail' };
  }

  /** The facts, after the last query. Throws ScsiDataError where the unit is not a usable disk. */
  facts(): DiskFacts {
    invariant(this.nextQuery() === null, 'facts are read before all queries are answered');
    const { inquiry, capacity } = this.#found;
    invariant(inquiry, 'no INQUIRY data');
    if (inquiry.peripheralQualifier !== 0) throw new ScsiDataError('no device has this LUN');
    if (capacity === null) {
      throw new ScsiDataError(
        `the unit is a ${deviceTypeName(inquiry.deviceType)} or tells no capacity, not a disk`,
      );
    }
    const facts = joinFacts(this.#found, inquiry, capacity);
    const unread = [...this.#unread].filter((part) => isMissing(part, this.#found));
    const notes = [...this.#notes];
    if (unread.includes('mode')) notes.push(CACHE_NOT_READ);
    else if (this.#found.caching === null) notes.push(CACHE_NOT_TOLD);
    if (unread.length === 0) return { ...facts, notes };
    const writeCacheEnabled = unread.includes('mode') || facts.writeCacheEnabled;
    return { ...facts, writeCacheEnabled, notes, unread };
  }

  #notRead(part: OptionalPart, query: FactQuery, reply: FactReply): void {
    this.#unread.add(part);
    if (part === 'pages') {
      this.#found.supportedPages = null;
      for (const each of UNLISTED_PARTS) this.#unread.add(each);
    }
    const words = replyToWords(reply.status, parseSense(reply.sense));
    this.#notes.push(`${query.name} cannot be read: ${words}`);
  }

  #decode(query: FactQuery, data: Buffer): void {
    try {
      query.decode(data, this.#found);
    } catch (error) {
      if (query.part === null || !(error instanceof ScsiDataError)) throw error;
      this.#notes.push(`${query.name}: ${error.message}`);
    }
  }

  #advance(): void {
    this.#index += 1;
    this.#attempts = 0;
  }
}

/** Pages that are not asked for without the list of those there are. */
const UNLISTED_PARTS: readonly OptionalPart[] = ['limits', 'characteristics', 'provisioning'];

/** The unit cannot serve, and will not within some tries. */
function isGone({ action, attention }: Verdict): boolean {
  return action === 'away' && !isBecomingReady(attention);
}

/** What one query could not read, another one may have. */
function isMissing(part: OptionalPart, found: FoundFacts): boolean {
  return part !== 'mode' || found.caching === null;
}

function refused(query: FactQuery, status: number, sense: SenseData): ScsiError {
  return new ScsiError(`${query.name} failed: ${replyToWords(status, sense)}`, {
    status,
    senseKey: sense.senseKey,
    asc: sense.asc,
    ascq: sense.ascq,
  });
}

function joinFacts(
  found: FoundFacts,
  inquiry: InquiryData,
  capacity: Capacity,
): Omit<DiskFacts, 'notes' | 'unread'> {
  const { blockSizeBytes } = capacity;
  const isPowerOfTwo = (blockSizeBytes & (blockSizeBytes - 1)) === 0;
  if (!isPowerOfTwo || blockSizeBytes < BLOCK_BYTES_MIN || blockSizeBytes > BLOCK_BYTES_MAX) {
    throw new ScsiDataError(`a disk with ${blockSizeBytes}-byte blocks cannot be served`);
  }
  const rate = found.characteristics?.mediumRotationRate ?? 0;
  return {
    vendor: inquiry.vendor,
    product: inquiry.product,
    revision: inquiry.revision,
    serial: found.serial,
    identifiers: logicalUnitIdentifiers(found.designators),
    deviceType: inquiry.deviceType,
    blockSizeBytes,
    blockCount: capacity.blockCount,
    physicalBlockExponent: capacity.physicalBlockExponent,
    readOnly:
      (found.mode?.writeProtected ?? false) || (found.control?.softwareWriteProtect ?? false),
    writeCacheEnabled: found.caching?.writeCacheEnabled ?? false,
    dpoFua: found.mode?.dpoFua ?? false,
    commandQueuing: inquiry.commandQueuing,
    thin: thinFacts(found, capacity),
    limits: limitFacts(found, transferBlocksMax(found, inquiry, blockSizeBytes)),
    rotational: rate === 0 ? null : rate !== 1,
  };
}

function thinFacts(found: FoundFacts, capacity: Capacity): DiskFacts['thin'] {
  if (!capacity.provisioningManaged) {
    return { unmap: false, writeSame16Unmap: false, readsZero: false };
  }
  const hasUnmapLimits = (found.limits?.unmapBlocksMax ?? 0) > 0;
  const { provisioning } = found;
  if (provisioning === null) {
    // Devices older than page B2h: those without limits for UNMAP mean WRITE SAME.
    return {
      unmap: hasUnmapLimits,
      writeSame16Unmap: !hasUnmapLimits,
      readsZero: capacity.readsZero,
    };
  }
  return {
    unmap: provisioning.unmap && hasUnmapLimits,
    writeSame16Unmap: provisioning.writeSame16Unmap,
    // LBPRZ came later to the page than to READ CAPACITY(16): 0 there says nothing.
    readsZero:
      provisioning.readZeros === 0 ? capacity.readsZero : (provisioning.readZeros & 1) === 1,
  };
}

/**
 * Make, model and bytes of disks that refuse longer transfers without a Block Limits page that says
 * so. Linux has the same rows (drivers/scsi/scsi_devinfo.c, BLIST_MAX_1024: 1024 sectors).
 */
const SHORT_TRANSFERS: readonly (readonly [vendor: string, product: string, bytes: number])[] = [
  ['QNAP', 'iSCSI Storage', 512 << 10],
  ['SYNOLOGY', 'iSCSI Storage', 512 << 10],
];

/** Blocks of one READ or WRITE at most, by the Block Limits page and by what is known of disks. */
function transferBlocksMax(
  { limits }: FoundFacts,
  { vendor, product }: InquiryData,
  blockSizeBytes: number,
): number {
  const told = limits?.transferBlocksMax || UINT32_MAX;
  const row = SHORT_TRANSFERS.find(([make, model]) => make === vendor && model === product);
  return row === undefined ? told : Math.min(told, Math.floor(row[2] / blockSizeBytes));
}

function limitFacts({ limits }: FoundFacts, maxTransferBlocks: number): DiskLimits {
  const unmapLbaMax = limits?.unmapBlocksMax ?? 0;
  const descriptors = Math.min(limits?.unmapDescriptorsMax ?? 0, UNMAP_DESCRIPTORS_MAX);
  const writeSameMax = limits === null ? 0 : (limits.writeSameBlocksMax ?? UINT32_MAX);
  return {
    maxTransferBlocks,
    optimalTransferBlocks: limits?.optimalTransferBlocks ?? 0,
    optimalGranularity: limits?.optimalGranularityBlocks ?? 0,
    unmapLbaMax,
    unmapDescriptorsMax: unmapLbaMax === 0 ? 0 : Math.max(descriptors, 1),
    unmapGranularity: limits?.unmapGranularityBlocks || 1,
    unmapAlignment: limits?.unmapAlignmentBlocks ?? 0,
    writeSameBlocksMax: Math.min(writeSameMax || WRITE_SAME_BLOCKS_ASSUMED, UINT32_MAX),
  };
}
