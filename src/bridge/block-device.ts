import type { BlockErrno } from '../base/errors.js';
import { Fragments } from '../base/fragments.js';
import type { SlabPool } from '../base/slab.js';

export type BlockOperation = 'read' | 'write' | 'flush' | 'trim' | 'writeZeroes' | 'blockStatus';

/** A run of bytes with one allocation status (NBD `base:allocation`). */
export type BlockExtentStatus = {
  readonly lengthBytes: number;
  readonly hole: boolean;
  readonly zero: boolean;
};

/** Why a request ends whose client does not wait for it any more. */
export const CLIENT_GONE = 'the client is gone';

/** Why a request of a replay ends that was not done: all of the replay begins anew. */
export const REPLAY_LOST = 'the replay was interrupted';

/** From `startBytes` to before `endBytes`. */
export type ByteRange = { readonly startBytes: number; readonly endBytes: number };

export interface BlockRequestOwner {
  /**
   * The owner does not wait for its requests any more: none is sent again, since it could then
   * overwrite something newer.
   */
  readonly isGone: boolean;
  /**
   * Parts of the disk with a user of their own each, as the partitions of a kernel device. Asked
   * only when acknowledged writes were lost; empty without partitions.
   */
  readonly partitions?: (() => readonly ByteRange[]) | undefined;
  /** The request is answered: `errno` says how. The owner reads it and may use it again. */
  blockRequestDone(request: BlockRequest): void;
}

/**
 * One request to a disk, from the client that asks to the answer. Preallocated and used again.
 * Offsets and lengths are bytes: exact below 2^53, and in whole blocks up to 2^63.
 */
export class BlockRequest {
  readonly owner: BlockRequestOwner;
  operation: BlockOperation = 'read';
  offsetBytes = 0;
  lengthBytes = 0;
  /** Forced unit access: stable before the answer. */
  fua = false;
  /** Write zeroes: keep the blocks allocated. */
  noHole = false;
  /** Write zeroes: fail with ENOTSUP rather than be slow. */
  fastZero = false;
  /** Block status: one extent is wanted, no more. */
  oneExtent = false;
  /** Bytes of a write; bytes a read has found. */
  readonly data: Fragments;
  /** null is success. */
  errno: BlockErrno | null = null;
  /** Why it failed, in words, for the event and the log. */
  reason = '';
  extents: BlockExtentStatus[] | null = null;
  /** Client's name for the request, as two u32 halves. */
  cookieUpper = 0;
  cookieLower = 0;
  /** Bytes of the budget it holds. */
  budgetBytes = 0;
  /** Bytes of its reply that its client's share has. */
  replyBytes = 0;

  /** Order of arrival, and times the link went under it; used by the outage queue. */
  sequence = 0;
  losses = 0;

  /** Of all tries since it arrived: unit attentions, the first of them, and wrong transfers. */
  attentions = 0;
  attendedFirstAtMs = 0;
  /** Instant at which the disk said first that it cannot serve; 0: it has not. */
  awaySinceMs = 0;
  wrongTransfers = 0;

  /** Used by the disk while the request exists: what is sent so far, and where that ends. */
  issuedBytes = 0;
  issueEndBytes = 0;
  partsIssued = 0;
  partsPending = 0;
  wasLost = false;
  flushAfterwards = false;
  /** It writes again what was acknowledged before: it goes to the disk while others are held. */
  isReplay = false;
  /** Entries for which it has room among the retained writes. */
  retainedEntries = 0;
  /** Marks of the write-cache rule at the beginning. */
  powerEventsBefore = 0;
  lossesBefore = 0;

  constructor(owner: BlockRequestOwner, pool: SlabPool) {
    this.owner = owner;
    this.data = new Fragments(pool);
  }

  /** It puts bytes on the disk, which the disk has when it has succeeded. */
  get writes(): boolean {
    return this.operation === 'write' || this.operation === 'writeZeroes';
  }

  /** The disk is another one after it. */
  get changes(): boolean {
    return this.writes || this.operation === 'trim';
  }

  /** The disk begins it, the first time or anew. */
  begin(): void {
    this.issuedBytes = 0;
    this.issueEndBytes = this.lengthBytes;
    this.partsIssued = 0;
    this.partsPending = 0;
    this.errno = null;
    this.reason = '';
    this.wasLost = false;
    this.flushAfterwards = false;
  }

  /** What it ends with when all its parts are back; the first failure counts. */
  fail(errno: BlockErrno, reason: string): void {
    if (this.errno !== null) return;
    this.errno = errno;
    this.reason = reason;
  }

  /** Ends the request. */
  done(errno: BlockErrno | null, reason = ''): void {
    this.errno = errno;
    this.reason = reason;
    this.owner.blockRequestDone(this);
  }
}

/** A disk as a client sees it. Facts may change between requests (resize, write protection). */
export interface BlockDevice {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly readOnly: boolean;
  submit(request: BlockRequest): void;
  /** A client uses the disk from now on. */
  clientCame?(owner: BlockRequestOwner): void;
  /**
   * The client is gone. Of its requests under way those not sent yet end now; the others are
   * reported by `abandonedRequestDone` when they have ended.
   */
  clientGone(owner: BlockRequestOwner, underWay: readonly BlockRequest[]): void;
  abandonedRequestDone?(request: BlockRequest): void;
  /** This request failed, as its client knows; for those who watch the disk. */
  requestFailed?(request: BlockRequest): void;
}
