import type { Clock } from '../base/clock.js';
import { type BlockErrno, invariant, ProductError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import type { BlockDevice, BlockExtentStatus, BlockRequest } from './block-device.js';
import { extentsFromLbaStatus } from './block-status.js';
import { CommandBuilder } from './command-builder.js';
import { DiskCommand, type DiskCommandOwner } from './disk-command.js';
import { type Judgement, judgeReply } from './reply-judge.js';
import { refusalOf, trimRange } from './request-limits.js';
import { retryDelayMs } from './retry-plan.js';
import { CACHE_LOST, WriteCacheWatch } from './write-cache.js';

/** Commands one request has in flight at most, when it has to be split. */
const PARTS_MAX = 8;

export interface ScsiDiskHooks {
  /**
   * False while nothing may be sent, as when the disk's identity is not known to be the same. A
   * command that is due then ends its request as lost.
   */
  maySend(): boolean;
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
  readonly #builder: CommandBuilder;
  readonly #cache = new WriteCacheWatch();
  readonly #idle: DiskCommand[] = [];
  /** Commands of reads in more than one part, until their data is joined. */
  readonly #readParts = new Map<BlockRequest, DiskCommand[]>();

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
    this.#builder = new CommandBuilder(options.pool);
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
    request.issueEndBytes = request.lengthBytes;
    request.partsIssued = 0;
    request.partsPending = 0;
    request.errno = null;
    request.reason = '';
    request.wasLost = false;
    request.flushAfterwards = false;
    request.powerEventsBefore = this.#cache.powerEvents;
    request.lossesBefore = this.#cache.losses;
    const refusal = refusalOf(request, this);
    if (refusal !== null) {
      request.done(refusal, 'the request does not fit the disk');
      return;
    }
    switch (request.operation) {
      case 'read':
        request.data.clear();
        break;
      case 'write':
        request.flushAfterwards = request.fua && !this.facts.dpoFua;
        break;
      case 'flush':
        this.#submitFlush(request);
        return;
      case 'trim':
        this.#submitTrim(request);
        return;
      case 'writeZeroes':
        request.flushAfterwards = request.fua;
        if (request.fastZero && !this.#builder.zeroesFast(request, this.facts)) {
          request.done('ENOTSUP', 'the disk has no fast way to write zeros');
          return;
        }
        break;
      case 'blockStatus':
        request.extents = null;
    }
    this.#issue(request);
  }

  /** The disk does not know clients; what is under way ends by itself. */
  clientGone(): void {}

  /** The disk says that it was powered on or reset: cached writes not flushed are gone. */
  cacheMayBeLost(): void {
    this.#cache.mayBeLost();
  }

  /** The disk said that something has changed, to one of our commands or to another's. */
  attended(attention: Attention, words: string): void {
    if (attention === 'powerOn' || attention === 'reset') this.#cache.mayBeLost();
    if (attention === 'cachedWriteLost') this.#cache.isLost();
    this.#hooks.attention(attention, words);
  }

  /** A process before this one had the disk: its writes may be in the cache, acknowledged. */
  takenOver(): void {
    if (this.facts.writeCacheEnabled) this.#cache.writeAcknowledged();
  }

  /** The disk is not used any more; requests under way still end. */
  close(): void {
    this.#builder.close();
  }

  diskCommandDone(command: DiskCommand): void {
    const { scsi, request } = command;
    invariant(request, 'a finished command without its request');
    // The usual end, first: GOOD and all the bytes.
    if (
      scsi.outcome === 'answered' &&
      scsi.status === 0 &&
      scsi.residual === 0 &&
      (scsi.direction !== 'read' || scsi.dataIn.byteLength === scsi.transferLength)
    ) {
      this.#succeeded(command, request);
      return;
    }
    this.#troubled(command, request);
  }

  #submitFlush(request: BlockRequest): void {
    request.issueEndBytes = 0;
    if (this.#cache.takeLoss()) request.done('EIO', CACHE_LOST);
    else this.#sendFlush(request);
  }

  #submitTrim(request: BlockRequest): void {
    const { thin } = this.facts;
    const canTrim = thin.unmap || thin.writeSame16Unmap;
    const { startBytes, endBytes } = trimRange(request, this.facts);
    if (!canTrim || startBytes === endBytes) {
      request.done(null);
      return;
    }
    request.issuedBytes = startBytes;
    request.issueEndBytes = endBytes;
    request.flushAfterwards = request.fua;
    this.#issue(request);
  }

  /** Sends commands for what is not yet under way, a bounded number at a time. */
  #issue(request: BlockRequest): void {
    // Counted as one more part, so that an end within `submit` does not end the request here.
    request.partsPending += 1;
    const partsMax = request.operation === 'blockStatus' ? 1 : PARTS_MAX;
    const bytesMax = this.#builder.partBytesMax(request, this.facts);
    while (
      request.issuedBytes < request.issueEndBytes &&
      request.partsPending <= partsMax &&
      request.errno === null &&
      !request.wasLost
    ) {
      const startBytes = request.issuedBytes;
      const lengthBytes = Math.min(request.issueEndBytes - startBytes, bytesMax);
      request.issuedBytes += lengthBytes;
      request.partsIssued += 1;
      const command = this.#take(request);
      command.startBytes = startBytes;
      command.lengthBytes = lengthBytes;
      this.#builder.part(command, request, this.facts);
      if (command.scsi.dataIn === command.ownDataIn && request.operation === 'read') {
        this.#rememberPart(request, command);
      }
      this.#send(command, request);
    }
    request.partsPending -= 1;
    if (request.partsPending === 0) this.#requestDone(request);
  }

  #sendFlush(request: BlockRequest): void {
    const command = this.#take(request);
    command.isFlush = true;
    command.flushCovers = this.#cache.mark;
    this.#builder.flush(command);
    this.#send(command, request);
  }

  #take(request: BlockRequest): DiskCommand {
    const command = this.#idle.pop() ?? new DiskCommand(this, this.#pool);
    command.request = request;
    command.startBytes = 0;
    command.lengthBytes = 0;
    command.isFlush = false;
    command.retries = 0;
    command.scsi.lun = this.lun;
    request.partsPending += 1;
    return command;
  }

  #send(command: DiskCommand, request: BlockRequest): void {
    if (this.#hooks.maySend()) this.#port.submit(command.scsi);
    else this.#lost(command, request);
  }

  #rememberPart(request: BlockRequest, command: DiskCommand): void {
    const parts = this.#readParts.get(request);
    if (parts === undefined) this.#readParts.set(request, [command]);
    else parts.push(command);
  }

  #succeeded(command: DiskCommand, request: BlockRequest): void {
    if (command.isFlush) {
      if (this.#flushLearnsOfLoss(command, request)) return;
      this.#cache.flushed(command.flushCovers);
    } else if (request.operation === 'blockStatus') {
      request.extents = this.#extents(command, request);
    }
    this.#partDone(command, request);
  }

  /** Acknowledged writes were lost while the flush was under way: it fails, however it ended. */
  #flushLearnsOfLoss(command: DiskCommand, request: BlockRequest): boolean {
    const cache = this.#cache;
    if (request.operation !== 'flush' || request.lossesBefore === cache.losses) return false;
    cache.takeLoss();
    this.#failPart(command, request, 'EIO', CACHE_LOST);
    return true;
  }

  #partDone(command: DiskCommand, request: BlockRequest): void {
    request.partsPending -= 1;
    const isPartOfRead = request.operation === 'read' && command.scsi.dataIn !== request.data;
    if (!isPartOfRead) this.#recycle(command);
    if (request.partsPending === 0 || request.issuedBytes < request.issueEndBytes) {
      this.#goOn(request);
    }
  }

  /** A part is done: the next ones, or the end. */
  #goOn(request: BlockRequest): void {
    const isStopped = request.errno !== null || request.wasLost;
    if (request.issuedBytes < request.issueEndBytes && !isStopped) this.#issue(request);
    else if (request.partsPending === 0) this.#requestDone(request);
  }

  #requestDone(request: BlockRequest): void {
    if (request.operation === 'read' && request.partsIssued > 1) this.#joinParts(request);
    if (request.errno === null && !request.wasLost) {
      // What a part wrote before the cache was emptied is gone although the request goes on.
      const isPower = request.powerEventsBefore !== this.#cache.powerEvents;
      const mayBeHalf = request.partsIssued > 1 || request.fua;
      if (isPower && mayBeHalf && modifies(request)) request.wasLost = true;
    }
    if (request.wasLost) {
      if (request.operation === 'read') request.data.clear();
      this.#hooks.requestLost(request);
      return;
    }
    if (request.errno !== null) {
      if (request.operation === 'read') request.data.clear();
    } else if (request.flushAfterwards) {
      request.flushAfterwards = false;
      this.#sendFlush(request);
      return;
    } else if (modifies(request) && this.facts.writeCacheEnabled && !request.fua) {
      this.#cache.writeAcknowledged();
    }
    request.done(request.errno, request.reason);
  }

  /** Joins the data of a split read: parts are in the order in which they were first sent. */
  #joinParts(request: BlockRequest): void {
    const parts = this.#readParts.get(request);
    if (parts === undefined) return;
    this.#readParts.delete(request);
    for (const part of parts) {
      const { dataIn } = part.scsi;
      request.data.appendSlice(dataIn, 0, dataIn.byteLength);
      this.#recycle(part);
    }
  }

  #recycle(command: DiskCommand): void {
    command.recycle();
    this.#idle.push(command);
  }

  /** Blocks the disk tells nothing of count as data, which is true of any block. */
  #extents(command: DiskCommand, request: BlockRequest): BlockExtentStatus[] {
    const { offsetBytes, lengthBytes } = request;
    try {
      return extentsFromLbaStatus(command.scsi.dataIn.toBuffer(), {
        offsetBytes,
        lengthBytes,
        blockSizeBytes: this.facts.blockSizeBytes,
        holesReadZero: this.facts.thin.readsZero,
      });
    } catch (error) {
      if (!(error instanceof ProductError) || error.code === 'ERR_INVARIANT') throw error;
      return [{ lengthBytes, hole: false, zero: false }];
    }
  }

  /** Everything but the usual end: lost, refused, or answered with something else than GOOD. */
  #troubled(command: DiskCommand, request: BlockRequest): void {
    const judgement = judgeReply(command, request, this.facts);
    if (judgement.congested) this.#hooks.congested();
    if (judgement.attention !== null) this.attended(judgement.attention, judgement.why);
    if (judgement.next !== 'lost' && this.#flushLearnsOfLoss(command, request)) return;
    switch (judgement.next) {
      case 'succeed':
        this.#succeeded(command, request);
        return;
      case 'lost':
        this.#lost(command, request);
        return;
      case 'withoutWriteSame':
        this.#builder.writeSameRefused = true;
        this.#lost(command, request);
        return;
      case 'fail':
        this.#failPart(command, request, judgement.errno, judgement.why);
        return;
      default:
        this.#again(command, request, judgement);
    }
  }

  #again(command: DiskCommand, request: BlockRequest, judgement: Judgement): void {
    const nowMs = this.#clock.nowMs();
    const delayed = judgement.next === 'againLater';
    if (request.wasLost) {
      this.#lost(command, request);
      return;
    }
    const delayMs = request.errno === null ? retryDelayMs(command, { delayed, nowMs }) : null;
    if (delayMs === null) {
      this.#failPart(command, request, judgement.errno, judgement.why);
      return;
    }
    command.resetReply();
    if (delayMs === 0) this.#send(command, request);
    else this.#clock.at(nowMs + delayMs, () => this.#send(command, request));
  }

  #lost(command: DiskCommand, request: BlockRequest): void {
    request.wasLost = true;
    this.#partDone(command, request);
  }

  #failPart(command: DiskCommand, request: BlockRequest, errno: BlockErrno, reason: string): void {
    if (request.errno === null) {
      request.errno = errno;
      request.reason = reason;
    }
    this.#partDone(command, request);
  }
}

function modifies(request: BlockRequest): boolean {
  return request.operation === 'write' || request.operation === 'writeZeroes';
}
