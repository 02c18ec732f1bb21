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

export interface BlockRequestOwner {
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

  /** Order of arrival, and times the link went under it; used by the outage queue. */
  sequence = 0;
  losses = 0;

  /** Used by the disk while the request is there: what is sent so far, and where that ends. */
  issuedBytes = 0;
  issueEndBytes = 0;
  partsIssued = 0;
  partsPending = 0;
  wasLost = false;
  flushAfterwards = false;
  /** Marks of the write-cache rule at the beginning. */
  powerEventsBefore = 0;
  lossesBefore = 0;

  constructor(owner: BlockRequestOwner, pool: SlabPool) {
    this.owner = owner;
    this.data = new Fragments(pool);
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
  /** The client is gone: of its requests, those not sent yet end now. */
  clientGone(owner: BlockRequestOwner): void;
  /** A client has been told that this request failed; for those who watch the disk. */
  requestFailed?(request: BlockRequest): void;
}
