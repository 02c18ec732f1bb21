import type { Clock } from '../base/clock.js';
import { type BlockErrno, invariant } from '../base/errors.js';
import { IdleWatch } from '../base/idle-watch.js';
import type { SlabPool } from '../base/slab.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import {
  type BlockDevice,
  type BlockRequest,
  type BlockRequestOwner,
  CLIENT_GONE,
} from './block-device.js';
import { extentsOrData } from './block-status.js';
import { classifyReply, type ReplyAction } from './classify-reply.js';
import { CommandBuilder } from './command-builder.js';
import { DiskCommand, type DiskCommandOwner } from './disk-command.js';
import { ReadParts } from './read-parts.js';
import { refusalOf, trimRange } from './request-limits.js';
import type { RetainedWrites } from './retained/retained-writes.js';
import { type RetryReason, retryDelayMs, wrongTransferDelayMs } from './retry-policy.js';
import type { ScsiDiskHooks } from './scsi-disk-hooks.js';
import { CACHE_LOST, WriteCacheWatch } from './write-cache.js';

/** Commands one request has in flight at most, when it has to be split. */
const PARTS_MAX = 8;

/**
 * Turns block requests into SCSI commands and their replies into answers: bytes to logical block
 * addresses, the disk's limits, and the sense table's verdicts (SBC-3).
 */
export class ScsiDisk implements BlockDevice, DiskCommandOwner {
  facts: DiskFacts;
  /** Read-only because the operator wants it. */
  readonly forcedReadOnly: boolean;
  readonly lun: LunField;
  #port: ScsiPort;
  readonly #pool: SlabPool;
  readonly #clock: Clock;
  readonly #hooks: ScsiDiskHooks;
  readonly #builder: CommandBuilder;
  readonly cache: WriteCacheWatch;
  readonly #idle: DiskCommand[] = [];
  /** Commands that the session has. */
  readonly underWay = new IdleWatch();
  readonly #readParts = new ReadParts();

  constructor(options: {
    readonly port: ScsiPort;
    readonly pool: SlabPool;
    readonly clock: Clock;
    readonly lun: LunField;
    readonly facts: DiskFacts;
    readonly forcedReadOnly: boolean;
    readonly hooks: ScsiDiskHooks;
    readonly retained?: RetainedWrites | null;
  }) {
    this.#port = options.port;
    this.#pool = options.pool;
    this.#clock = options.clock;
    this.#hooks = options.hooks;
    this.lun = options.lun;
    this.facts = options.facts;
    this.forcedReadOnly = options.forcedReadOnly;
    this.#builder = new CommandBuilder(options.pool);
    this.cache = new WriteCacheWatch(this.sizeBytes, options.hooks, options.retained);
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
    request.begin();
    request.powerEventsBefore = this.cache.powerEvents;
    request.lossesBefore = this.cache.losses;
    const refusal = refusalOf(request, this);
    if (refusal !== null) {
      request.fail(refusal, 'the request does not fit the disk');
      this.#requestDone(request);
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
          request.fail('ENOTSUP', 'the disk has no fast way to write zeros');
          this.#requestDone(request);
          return;
        }
        break;
      case 'blockStatus':
        request.extents = null;
    }
    this.#issue(request);
  }

  clientCame(owner: BlockRequestOwner): void {
    this.cache.debts.clientCame(owner);
  }

  /** What the client has under way ends by itself, and is not sent again. */
  clientGone(owner: BlockRequestOwner): void {
    this.cache.debts.clientGone(owner);
  }

  /** Commands go there from now on; those under way end where they are. */
  usePort(port: ScsiPort): void {
    this.#port = port;
  }

  /** Nothing may be sent for now: what has not been sent yet comes back, and is held. */
  recall(): void {
    this.#port.recall(this.lun);
  }

  /** What the disk said to one of our commands or to another's; `sinceMs` as in the hook. */
  unitAttention(attention: Attention, words: string, sinceMs = this.#clock.nowMs()): void {
    if (attention === 'powerOn' || attention === 'reset') this.cache.mayBeLost();
    if (attention === 'cachedWriteLost') this.cache.isLost();
    this.#hooks.attention(attention, words, sinceMs);
  }

  /** The disk is not used any more; requests under way still end. */
  close(): void {
    this.#builder.close();
  }

  diskCommandDone(command: DiskCommand): void {
    const { scsi, request } = command;
    invariant(request, 'a finished command without its request');
    this.underWay.ended();
    // The usual end, first: GOOD and all the bytes, in whichever direction.
    const movedBytes = scsi.direction === 'read' ? scsi.dataIn.byteLength : scsi.sentBytes;
    if (
      scsi.outcome === 'answered' &&
      scsi.status === 0 &&
      scsi.residual === 0 &&
      movedBytes === scsi.transferLength
    ) {
      this.#succeeded(command, request);
    } else {
      this.#troubled(command, request);
    }
    this.underWay.tell();
  }

  #submitFlush(request: BlockRequest): void {
    request.issueEndBytes = 0;
    if (!request.isReplay && this.cache.flushTells(request.owner)) request.done('EIO', CACHE_LOST);
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
      const command = this.#take(request, startBytes, lengthBytes);
      this.#builder.part(command, request, this.facts);
      if (command.scsi.dataIn === command.ownDataIn && request.operation === 'read') {
        this.#readParts.add(request, command);
      }
      this.#send(command, request);
    }
    request.partsPending -= 1;
    if (request.partsPending === 0) this.#requestDone(request);
  }

  #sendFlush(request: BlockRequest): void {
    const command = this.#take(request);
    command.isFlush = true;
    command.flushCovers = this.cache.flushBegins();
    this.#builder.flush(command);
    this.#send(command, request);
  }

  #take(request: BlockRequest, startBytes = 0, lengthBytes = 0): DiskCommand {
    const command = this.#idle.pop() ?? new DiskCommand(this, this.#pool);
    command.begin(request, startBytes, lengthBytes);
    command.scsi.lun = this.lun;
    request.partsPending += 1;
    return command;
  }

  #send(command: DiskCommand, request: BlockRequest): void {
    if (request.isReplay || this.#hooks.maySend()) {
      this.underWay.began();
      this.#port.submit(command.scsi);
    } else {
      this.#lost(command, request);
    }
  }

  #succeeded(command: DiskCommand, request: BlockRequest): void {
    if (command.isFlush) {
      if (this.#flushLearnsOfLoss(command, request)) return;
      if (this.cache.isVoid(request)) {
        this.#lost(command, request);
        return;
      }
      if (!request.isReplay) this.cache.flushed(command.flushCovers);
    } else if (request.operation === 'blockStatus') {
      request.extents = extentsOrData(command.scsi.dataIn.toBuffer(), request, this.facts);
    }
    this.#partDone(command, request);
  }

  /** Acknowledged writes were lost while the flush was under way: it fails, however it ended. */
  #flushLearnsOfLoss(command: DiskCommand, request: BlockRequest): boolean {
    const { cache } = this;
    const isLate = request.lossesBefore !== cache.losses && !request.isReplay;
    if (request.operation !== 'flush' || !isLate) return false;
    cache.flushTells(request.owner);
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
    const isWhole = request.issuedBytes === request.issueEndBytes;
    if (!isWhole && request.owner.isGone) request.fail('EIO', CLIENT_GONE);
    if (!isWhole && !request.wasLost && request.errno === null) this.#issue(request);
    else if (request.partsPending === 0) this.#requestDone(request);
  }

  #requestDone(request: BlockRequest): void {
    const { cache } = this;
    if (request.errno === null && !request.wasLost && cache.mayBeUndone(request)) {
      request.wasLost = true;
    }
    const isRead = request.operation === 'read';
    if (request.retainedEntries > 0) cache.endsRetaining(request);
    if (isRead && this.#readParts.isAny) {
      for (const part of this.#readParts.end(request)) this.#recycle(part);
    }
    if (isRead && (request.wasLost || request.errno !== null)) request.data.clear();
    if (request.wasLost) {
      this.#hooks.requestLost(request);
      return;
    }
    const isDone = request.errno === null;
    if (isDone && request.flushAfterwards) {
      request.flushAfterwards = false;
      this.#sendFlush(request);
      return;
    }
    const isChanged = isDone && request.changes && !request.isReplay;
    if (isChanged) cache.changed(request, this.facts.writeCacheEnabled);
    request.done(request.errno, request.reason);
  }

  #recycle(command: DiskCommand): void {
    command.recycle();
    this.#idle.push(command);
  }

  /** Everything but the usual end: lost, refused, or answered with something else than GOOD. */
  #troubled(command: DiskCommand, request: BlockRequest): void {
    const judgement = classifyReply(command, request, this.facts);
    if (judgement.congested) this.#hooks.congested();
    const { next, attention } = judgement;
    const isAway = next === 'away';
    if (isAway) request.awaySinceMs ||= this.#clock.nowMs();
    const sinceMs = isAway ? request.awaySinceMs : undefined;
    if (attention !== null) this.unitAttention(attention, judgement.why, sinceMs);
    if (next !== 'lost' && !isAway && this.#flushLearnsOfLoss(command, request)) return;
    switch (next) {
      case 'succeed':
        this.#succeeded(command, request);
        return;
      case 'lost':
      case 'away':
        this.#lost(command, request);
        return;
      case 'otherwise': {
        const bytesMax = this.#builder.refused(command, this.facts);
        if (bytesMax !== null) this.#hooks.transfersCut(command.lengthBytes, bytesMax);
        this.#lost(command, request);
        return;
      }
      case 'fail':
        this.#failPart(command, request, judgement.errno, judgement.why);
        return;
      case 'wrongTransfer':
        this.#beginAnew(command, request, judgement.why);
        return;
      default:
        this.#again(command, request, next, judgement);
    }
  }

  #again(
    command: DiskCommand,
    request: BlockRequest,
    reason: RetryReason,
    { errno, why }: ReplyAction,
  ): void {
    if (request.wasLost) {
      this.#lost(command, request);
      return;
    }
    const nowMs = this.#clock.nowMs();
    const mayGoOn = request.errno === null && !request.owner.isGone;
    const delayMs = mayGoOn ? retryDelayMs(command, request, { reason, nowMs }) : null;
    if (delayMs === null) {
      this.#failPart(command, request, errno, request.owner.isGone ? CLIENT_GONE : why);
      return;
    }
    command.scsi.emptyReply();
    if (delayMs === 0) this.#send(command, request);
    else {
      this.#clock.at(nowMs + delayMs, () => {
        if (request.owner.isGone) this.#failPart(command, request, 'EIO', CLIENT_GONE);
        else this.#send(command, request);
      });
    }
  }

  /** A part moved wrong bytes: the whole request is done again, as other parts may be wrong too. */
  #beginAnew(command: DiskCommand, request: BlockRequest, why: string): void {
    if (request.wasLost || request.errno !== null) {
      this.#partDone(command, request);
      return;
    }
    const delayMs = wrongTransferDelayMs(request);
    if (delayMs === null) {
      this.#failPart(command, request, 'EIO', `${why}, ${request.wrongTransfers} times`);
      return;
    }
    request.wasLost = true;
    if (delayMs === 0) this.#partDone(command, request);
    else this.#clock.at(this.#clock.nowMs() + delayMs, () => this.#partDone(command, request));
  }

  #lost(command: DiskCommand, request: BlockRequest): void {
    request.wasLost = true;
    this.#partDone(command, request);
  }

  #failPart(command: DiskCommand, request: BlockRequest, errno: BlockErrno, reason: string): void {
    request.fail(errno, reason);
    this.#partDone(command, request);
  }
}
