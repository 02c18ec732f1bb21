import type { Clock } from '../base/clock.js';
import { type BlockErrno, InvariantError, invariant } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import { SlabWriter } from '../base/slab-writer.js';
import {
  unmapParameterList,
  writeGetLbaStatusCdb,
  writeReadCdb,
  writeSynchronizeCacheCdb,
  writeUnmapCdb,
  writeWriteCdb,
  writeWriteSame16Cdb,
} from '../scsi/cdb.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { parseSense } from '../scsi/sense.js';
import type { Attention, Verdict } from '../scsi/sense-table.js';
import { replyToWords, verdictOf } from '../scsi/verdict.js';
import type { BlockDevice, BlockRequest } from './block-device.js';
import { extentsFromLbaStatus } from './block-status.js';
import { DiskCommand, type DiskCommandOwner } from './disk-command.js';

/** Bytes of one READ or WRITE at most where the disk states no limit of its own. */
const TRANSFER_BYTES_MAX = 8 << 20;
/** Commands one request has in flight at most, when it has to be split. */
const PARTS_MAX = 8;
/** Times a command is sent again at once, and how long one is repeated with pauses. */
const RETRIES_MAX = 16;
const RETRY_FOR_MS = 60_000;
const RETRY_DELAY_FIRST_MS = 50;
const RETRY_DELAY_MAX_MS = 2000;
/** Answer bytes of one GET LBA STATUS: 8 and 16 for each of 64 extents. */
const LBA_STATUS_BYTES = 8 + 16 * 64;

const CACHE_LOST = 'the disk lost acknowledged writes that were not yet flushed';

export interface ScsiDiskHooks {
  /** The link went before the answer: the request has to be submitted again. */
  requestLost(request: BlockRequest): void;
  /** The disk said that something has changed; `words` says what. */
  attention(attention: Attention, words: string): void;
  /** The disk wants fewer commands at a time. */
  congested(): void;
}

/**
 * Turns block requests into SCSI commands and their replies into answers: bytes to logical block
 * addresses, the disk's limits, and the sense table's verdicts (SBC-3).
 */
export class ScsiDisk implements BlockDevice, DiskCommandOwner {
  facts: DiskFacts;
  /** Read-only because the operator wants it. */
  readonly forcedReadOnly: boolean;
  readonly lun: LunField;
  readonly #port: ScsiPort;
  readonly #pool: SlabPool;
  readonly #clock: Clock;
  readonly #hooks: ScsiDiskHooks;
  readonly #idle: DiskCommand[] = [];
  readonly #parts = new Map<BlockRequest, DiskCommand[]>();
  readonly #writer: SlabWriter;
  /** Writes the disk has acknowledged into its volatile cache, and how many of them are flushed. */
  #writesCached = 0;
  #writesFlushed = 0;
  /** The cache is known to have lost acknowledged writes: the next flush has to say so. */
  #cacheLost = false;

  constructor(options: {
    readonly port: ScsiPort;
    readonly pool: SlabPool;
    readonly clock: Clock;
    readonly lun: LunField;
    readonly facts: DiskFacts;
    readonly forcedReadOnly: boolean;
    readonly hooks: ScsiDiskHooks;
  }) {
    this.#port = options.port;
    this.#pool = options.pool;
    this.#clock = options.clock;
    this.#hooks = options.hooks;
    this.lun = options.lun;
    this.facts = options.facts;
    this.forcedReadOnly = options.forcedReadOnly;
    this.#writer = new SlabWriter(options.pool);
  }

  get sizeBytes(): number {
    return this.facts.blockCount * this.facts.blockSizeBytes;
  }

  get blockSizeBytes(): number {
    return this.facts.blockSizeBytes;
  }

  get readOnly(): boolean {
    return this.forcedReadOnly || this.facts.readOnly;
  }

  submit(request: BlockRequest): void {
    request.issuedBytes = 0;
    request.partsPending = 0;
    request.errno = null;
    request.reason = '';
    request.wasLost = false;
    request.flushAfterwards = false;
    const refusal = this.#refusal(request);
    if (refusal !== null) {
      request.done(refusal, 'the request does not fit the disk');
      return;
    }
    switch (request.operation) {
      case 'read':
        request.data.clear();
        break;
      case 'write':
      case 'writeZeroes':
        request.flushAfterwards = request.fua && !this.facts.dpoFua;
        if (request.operation === 'writeZeroes') request.flushAfterwards = request.fua;
        break;
      case 'flush':
        if (this.#cacheLost) {
          this.#cacheLost = false;
          request.done('EIO', CACHE_LOST);
          return;
        }
        break;
      case 'trim':
        if (!this.facts.thin.unmap && !this.facts.thin.writeSame16Unmap) {
          request.done(null);
          return;
        }
        break;
      case 'blockStatus':
        break;
    }
    this.#issue(request);
  }

  /** A unit attention of power-on or reset: cached writes that were not flushed are gone. */
  cacheMayBeLost(): void {
    if (this.#writesCached > this.#writesFlushed) this.#cacheLost = true;
    this.#writesFlushed = this.#writesCached;
  }

  diskCommandDone(command: DiskCommand): void {
    const { scsi, request } = command;
    invariant(request, 'a finished command without its request');
    // The usual end, first: GOOD and all the bytes.
    if (
      scsi.outcome === 'answered' &&
      scsi.status === 0 &&
      (scsi.direction !== 'read' || scsi.dataIn.byteLength === scsi.transferLength)
    ) {
      this.#partSucceeded(command, request);
      return;
    }
    this.#troubled(command, request);
  }

  #refusal(request: BlockRequest): BlockErrno | null {
    const { operation, offsetBytes, lengthBytes } = request;
    if (operation === 'flush') return null;
    const blockSize = this.facts.blockSizeBytes;
    const modifies = operation === 'write' || operation === 'writeZeroes' || operation === 'trim';
    if (modifies && this.readOnly) return 'EPERM';
    if (offsetBytes + lengthBytes > this.sizeBytes) return modifies ? 'ENOSPC' : 'EINVAL';
    const isAligned = offsetBytes % blockSize === 0 && lengthBytes % blockSize === 0;
    if (!isAligned || lengthBytes === 0) return 'EINVAL';
    return null;
  }

  /** Sends commands for what is not yet under way, a bounded number at a time. */
  #issue(request: BlockRequest): void {
    if (request.operation === 'flush') {
      if (request.partsPending === 0) this.#sendFlush(request);
      return;
    }
    while (
      request.issuedBytes < request.lengthBytes &&
      request.partsPending < PARTS_MAX &&
      request.errno === null &&
      !request.wasLost
    ) {
      const left = request.lengthBytes - request.issuedBytes;
      if (request.operation === 'blockStatus' && request.partsPending > 0) return;
      const length = Math.min(left, this.#partBytesMax(request));
      this.#sendPart(request, request.issuedBytes, length);
      request.issuedBytes += length;
    }
  }

  #partBytesMax(request: BlockRequest): number {
    const { limits, blockSizeBytes } = this.facts;
    switch (request.operation) {
      case 'read':
      case 'write':
        return Math.max(
          blockSizeBytes,
          Math.min(limits.maxTransferBlocks * blockSizeBytes, alignedMax(blockSizeBytes)),
        );
      case 'trim':
        if (!this.facts.thin.unmap) return limits.writeSameBlocksMax * blockSizeBytes;
        return Math.max(1, limits.unmapLbaMax) * blockSizeBytes;
      case 'writeZeroes':
        return Math.max(1, limits.writeSameBlocksMax) * blockSizeBytes;
      default:
        return request.lengthBytes;
    }
  }

  #sendPart(request: BlockRequest, startBytes: number, lengthBytes: number): void {
    const { blockSizeBytes, dpoFua } = this.facts;
    const command = this.#take(request, startBytes, lengthBytes);
    const scsi = command.scsi;
    const lba = (request.offsetBytes + startBytes) / blockSizeBytes;
    const blockCount = lengthBytes / blockSizeBytes;
    switch (request.operation) {
      case 'read': {
        const whole = lengthBytes === request.lengthBytes;
        scsi.dataIn = whole ? request.data : command.ownDataIn;
        if (!whole) this.#rememberPart(request, command);
        scsi.prepare('read', lengthBytes);
        writeReadCdb(scsi.cdb, lba, blockCount, false);
        break;
      }
      case 'write':
        scsi.prepare('write', lengthBytes);
        writeWriteCdb(scsi.cdb, lba, blockCount, request.fua && dpoFua);
        scsi.dataOut = request.data;
        scsi.dataOutStart = startBytes;
        break;
      case 'trim':
        this.#prepareTrim(command, lba, blockCount);
        break;
      case 'writeZeroes':
        this.#prepareWriteSame(command, lba, blockCount, !request.noHole);
        break;
      case 'blockStatus':
        scsi.dataIn = command.ownDataIn;
        scsi.prepare('read', LBA_STATUS_BYTES);
        writeGetLbaStatusCdb(scsi.cdb, lba, LBA_STATUS_BYTES);
        break;
      case 'flush':
        throw new InvariantError('a flush has no parts');
    }
    this.#send(command);
  }

  #prepareTrim(command: DiskCommand, lba: number, blockCount: number): void {
    const { limits, thin } = this.facts;
    // Rounded inwards to whole granules: never more than asked.
    const granule = Math.max(1, limits.unmapGranularity);
    const offset = (lba - limits.unmapAlignment) % granule;
    const first = offset === 0 ? lba : lba + (granule - ((offset + granule) % granule));
    const end =
      lba +
      blockCount -
      ((((lba + blockCount - limits.unmapAlignment) % granule) + granule) % granule);
    const count = Math.max(0, end - first);
    if (!thin.unmap) {
      this.#prepareWriteSame(command, lba, blockCount, true);
      return;
    }
    const list = unmapParameterList(count > 0 ? [{ lba: first, blockCount: count }] : []);
    command.parameters.clear();
    this.#writer.write(list, command.parameters);
    command.scsi.prepare('write', list.length);
    writeUnmapCdb(command.scsi.cdb, list.length);
    command.scsi.dataOut = command.parameters;
  }

  #prepareWriteSame(command: DiskCommand, lba: number, blockCount: number, unmap: boolean): void {
    const { blockSizeBytes, thin } = this.facts;
    command.parameters.clear();
    this.#writer.write(Buffer.alloc(blockSizeBytes), command.parameters);
    command.scsi.prepare('write', blockSizeBytes);
    const mayUnmap = unmap && thin.writeSame16Unmap && thin.readsZero;
    writeWriteSame16Cdb(command.scsi.cdb, lba, blockCount, { unmap: mayUnmap, noDataOut: false });
    command.scsi.dataOut = command.parameters;
  }

  #sendFlush(request: BlockRequest): void {
    const command = this.#take(request, 0, 0);
    command.isFlush = true;
    command.flushCovers = this.#writesCached;
    command.scsi.prepare('none', 0);
    writeSynchronizeCacheCdb(command.scsi.cdb, 0, 0);
    this.#send(command);
  }

  #take(request: BlockRequest, startBytes: number, lengthBytes: number): DiskCommand {
    const command = this.#idle.pop() ?? new DiskCommand(this, this.#pool);
    command.request = request;
    command.startBytes = startBytes;
    command.lengthBytes = lengthBytes;
    command.isFlush = false;
    command.retries = 0;
    command.scsi.lun = this.lun;
    request.partsPending += 1;
    return command;
  }

  #send(command: DiskCommand): void {
    this.#port.submit(command.scsi);
  }

  #rememberPart(request: BlockRequest, command: DiskCommand): void {
    const parts = this.#parts.get(request);
    if (parts === undefined) this.#parts.set(request, [command]);
    else parts.push(command);
  }

  #partSucceeded(command: DiskCommand, request: BlockRequest): void {
    if (command.isFlush) {
      this.#writesFlushed = Math.max(this.#writesFlushed, command.flushCovers);
    } else if (request.operation === 'write' || request.operation === 'writeZeroes') {
      const isStable = request.fua && !request.flushAfterwards;
      if (this.facts.writeCacheEnabled && !isStable) this.#writesCached += 1;
    }
    this.#partDone(command, request);
  }

  #partDone(command: DiskCommand, request: BlockRequest): void {
    request.partsPending -= 1;
    if (request.operation === 'blockStatus' && !command.isFlush)
      this.#takeExtents(command, request);
    const isPartOfRead = request.operation === 'read' && command.scsi.dataIn !== request.data;
    if (!isPartOfRead) this.#recycle(command);
    if (request.issuedBytes < request.lengthBytes && !command.isFlush) this.#issue(request);
    if (request.partsPending === 0) this.#requestDone(request);
  }

  #requestDone(request: BlockRequest): void {
    const parts = this.#parts.get(request);
    if (parts !== undefined) this.#joinParts(request, parts);
    if (request.wasLost) {
      if (request.operation === 'read') request.data.clear();
      this.#hooks.requestLost(request);
      return;
    }
    if (request.errno === null && request.flushAfterwards) {
      request.flushAfterwards = false;
      this.#sendFlush(request);
      return;
    }
    if (request.errno !== null && request.operation === 'read') request.data.clear();
    request.done(request.errno, request.reason);
  }

  /** Joins the data of a split read in the order of the disk. */
  #joinParts(request: BlockRequest, parts: DiskCommand[]): void {
    this.#parts.delete(request);
    parts.sort((left, right) => left.startBytes - right.startBytes);
    for (const part of parts) {
      const { dataIn } = part.scsi;
      request.data.appendSlice(dataIn, 0, dataIn.byteLength);
      this.#recycle(part);
    }
  }

  #recycle(command: DiskCommand): void {
    command.request = null;
    command.scsi.dataOut = null;
    command.scsi.dataIn = command.ownDataIn;
    if (command.ownDataIn.count > 0) command.ownDataIn.clear();
    if (command.parameters.count > 0) command.parameters.clear();
    this.#idle.push(command);
  }

  #takeExtents(command: DiskCommand, request: BlockRequest): void {
    request.extents = extentsFromLbaStatus(command.scsi.dataIn.toBuffer(), {
      offsetBytes: request.offsetBytes,
      lengthBytes: request.lengthBytes,
      blockSizeBytes: this.facts.blockSizeBytes,
      holesReadZero: this.facts.thin.readsZero,
    });
  }

  /** Everything but the usual end: lost, refused, or answered with something else than GOOD. */
  #troubled(command: DiskCommand, request: BlockRequest): void {
    const { scsi } = command;
    if (scsi.outcome === 'lost' || scsi.outcome === 'aborted') {
      request.wasLost = true;
      this.#partDone(command, request);
      return;
    }
    if (scsi.outcome === 'failed') {
      const why = `the target could not run the command (response ${scsi.response})`;
      this.#again(command, request, { delayed: true, errno: 'EIO', why });
      return;
    }
    const sense =
      scsi.senseLength > 0 ? parseSense(scsi.sense.subarray(0, scsi.senseLength)) : null;
    const verdict = verdictOf(scsi.status, sense);
    const why = replyToWords(scsi.status, sense);
    if (verdict.congested) this.#hooks.congested();
    if (verdict.attention !== null) this.#attention(verdict.attention, why);
    if (command.isFlush && this.#cacheLost) {
      this.#cacheLost = false;
      this.#failPart(command, request, 'EIO', CACHE_LOST);
      return;
    }
    this.#judge(command, request, verdict, why);
  }

  #attention(attention: Attention, why: string): void {
    if (attention === 'powerOn' || attention === 'reset' || attention === 'cachedWriteLost') {
      this.cacheMayBeLost();
    }
    this.#hooks.attention(attention, why);
  }

  #judge(command: DiskCommand, request: BlockRequest, verdict: Verdict, why: string): void {
    switch (verdict.action) {
      case 'success':
        if (this.#isShort(command, request)) return;
        this.#partSucceeded(command, request);
        return;
      case 'retry':
      case 'attention':
        this.#again(command, request, { delayed: false, errno: verdict.errno, why });
        return;
      case 'retryAfterDelay':
        this.#again(command, request, { delayed: true, errno: verdict.errno, why });
        return;
      case 'fail':
        if (this.#isHarmless(command, request)) this.#partSucceeded(command, request);
        else this.#failPart(command, request, verdict.errno, why);
    }
  }

  /** GOOD with fewer bytes than a read asked for: a GET LBA STATUS may, a READ may not. */
  #isShort(command: DiskCommand, request: BlockRequest): boolean {
    if (request.operation !== 'read') return false;
    if (command.scsi.dataIn.byteLength === command.lengthBytes) return false;
    const got = command.scsi.dataIn.byteLength;
    const why = `the disk returned ${got} of ${command.lengthBytes} bytes`;
    this.#again(command, request, { delayed: false, errno: 'EIO', why });
    return true;
  }

  /** A disk without a write cache may refuse SYNCHRONIZE CACHE: there is nothing to flush. */
  #isHarmless(command: DiskCommand, request: BlockRequest): boolean {
    if (request.operation === 'trim') {
      const sense = command.scsi.sense;
      return command.scsi.senseLength > 2 && ((sense[2] ?? 0) & 0x0f) === 5;
    }
    if (!command.isFlush || this.facts.writeCacheEnabled) return false;
    const key = (command.scsi.sense[2] ?? 0) & 0x0f;
    return command.scsi.senseLength > 2 && key === 5;
  }

  #again(
    command: DiskCommand,
    request: BlockRequest,
    plan: { readonly delayed: boolean; readonly errno: BlockErrno; readonly why: string },
  ): void {
    const nowMs = this.#clock.nowMs();
    if (command.retries === 0) command.firstSentAtMs = nowMs;
    command.retries += 1;
    const tooLate = nowMs - command.firstSentAtMs > RETRY_FOR_MS;
    const tooOften = !plan.delayed && command.retries > RETRIES_MAX;
    if (tooLate || tooOften || request.errno !== null) {
      this.#failPart(command, request, plan.errno, plan.why);
      return;
    }
    resetReply(command);
    if (!plan.delayed) {
      this.#send(command);
      return;
    }
    const steps = Math.min(command.retries - 1, 10);
    const delayMs = Math.min(RETRY_DELAY_MAX_MS, RETRY_DELAY_FIRST_MS * 2 ** steps);
    this.#clock.at(nowMs + delayMs, () => this.#send(command));
  }

  #failPart(command: DiskCommand, request: BlockRequest, errno: BlockErrno, reason: string): void {
    if (request.errno === null) {
      request.errno = errno;
      request.reason = reason;
    }
    request.issuedBytes = request.lengthBytes;
    this.#partDone(command, request);
  }
}

function resetReply(command: DiskCommand): void {
  const { scsi } = command;
  scsi.outcome = 'pending';
  scsi.status = 0;
  scsi.senseLength = 0;
  scsi.residual = 0;
  scsi.dataIn.clear();
}

function alignedMax(blockSizeBytes: number): number {
  return Math.floor(TRANSFER_BYTES_MAX / blockSizeBytes) * blockSizeBytes;
}
