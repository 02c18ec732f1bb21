import type { Fragments } from '../base/fragments.js';
import { ScsiStatus } from './status.js';

/** Eight-byte LUN field (SAM-5 §4.7, RFC 7143 §11.2.1.7 (LUN)) as its two 32-bit halves. */
export type LunField = { readonly upper: number; readonly lower: number };

type DataDirection = 'none' | 'read' | 'write';

/**
 * How a command ended for the initiator:
 * - `pending`: not yet;
 * - `answered`: the target sent SCSI status (`status`, `sense`, `residual` say which);
 * - `failed`: the target said it could not deliver the command (iSCSI response not 0, or Reject);
 * - `lost`: the link went before the answer; whether the target did the work is unknown;
 * - `aborted`: task management ended it.
 */
export type ScsiOutcome = 'pending' | 'answered' | 'failed' | 'lost' | 'aborted';

/** Sense bytes kept of one reply (SPC-4 §4.5: at most 252). */
const SENSE_BYTES_MAX = 252;

const CDB_BYTES = 16;

export interface ScsiCommandOwner {
  /** The command has an outcome. The owner reads it and may use the object again. */
  scsiCommandDone(command: ScsiCommand): void;
}

/**
 * One SCSI command and its reply: what goes down to the initiator and comes back. Objects are
 * preallocated and used again, so the data path makes none.
 */
export class ScsiCommand {
  /** Whose command it is. */
  readonly sender: ScsiCommandOwner;
  /** Gets its outcome: the sender, or whatever sends it over one of several paths. */
  owner: ScsiCommandOwner;
  /** Number of the path that it takes, where its owner has several. */
  via = 0;
  /** Number of power losses told over other paths when it was sent, see `Path.era`. */
  era = 0;
  lun: LunField = { upper: 0, lower: 0 };
  /** 16 bytes; shorter CDBs are padded with zeros. */
  readonly cdb: Buffer = Buffer.alloc(CDB_BYTES);
  direction: DataDirection = 'none';
  /** Expected Data Transfer Length in bytes. */
  transferLength = 0;
  /** Bytes of a write: `transferLength` bytes of it from `dataOutStart` on. Owned by the owner. */
  dataOut: Fragments | null = null;
  dataOutStart = 0;
  /** Bytes of `dataOut` that were sent when the command ended: unasked, or because an R2T asked. */
  sentBytes = 0;
  /** A question of ours and no block I/O: it does not wait for the queue depth. */
  isControl = false;
  /** Called once, when the command leaves the queue for the link; of control commands only. */
  onSent: (() => void) | null = null;
  /** Bytes of a read as they arrive; the owner clears it when it has used them. */
  dataIn: Fragments;

  outcome: ScsiOutcome = 'pending';
  /** SCSI status byte (SAM-5 §5.3.1) when `answered`. */
  status = 0;
  /** iSCSI response code (RFC 7143 §11.4.3 (Response)) when `failed`. */
  response = 0;
  readonly sense: Buffer = Buffer.alloc(SENSE_BYTES_MAX);
  senseLength = 0;
  /** Bytes less than expected (underflow, positive) or more (overflow, negative). */
  residual = 0;
  /** Monotonic instant of the submission; for timeouts and latency. */
  submittedAtMs = 0;

  /** The target has answered with sense data, which may say that something has changed. */
  get isCheckCondition(): boolean {
    return this.status === ScsiStatus.checkCondition && this.outcome === 'answered';
  }

  constructor(owner: ScsiCommandOwner, dataIn: Fragments) {
    this.sender = owner;
    this.owner = owner;
    this.dataIn = dataIn;
  }

  /** Empties the reply fields, so that the same command can be sent again. */
  emptyReply(): void {
    this.sentBytes = 0;
    this.dataIn.clear();
    this.outcome = 'pending';
    this.status = 0;
    this.response = 0;
    this.senseLength = 0;
    this.residual = 0;
  }

  /** Makes the object ready for its next use; the reply fields are emptied. */
  prepare(direction: DataDirection, transferLength: number): void {
    this.direction = direction;
    this.transferLength = transferLength;
    this.dataOut = null;
    this.dataOutStart = 0;
    this.emptyReply();
    // A loop is inlined; `fill` checks its arguments and leaves JavaScript.
    for (let index = 0; index < CDB_BYTES; index += 1) this.cdb[index] = 0;
  }
}

/** Where commands go: stated here, filled by `io`. */
export interface ScsiPort {
  /** Takes a prepared command; its owner is called when it has an outcome. Never throws for I/O. */
  submit(command: ScsiCommand): void;
  /**
   * Gives back, as `lost`, the commands that are not sent yet: it must not go to whatever is there
   * by now. Control commands stay: they are what finds that out.
   */
  recall(lun: LunField): void;
}
