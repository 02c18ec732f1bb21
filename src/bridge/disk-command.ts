import { Fragments } from '../base/fragments.js';
import type { SlabPool } from '../base/slab.js';
import { ScsiCommand, type ScsiCommandOwner } from '../scsi/command.js';
import type { BlockRequest } from './block-device.js';

export interface DiskCommandOwner {
  diskCommandDone(command: DiskCommand): void;
}

/** One SCSI command that does a part (or all) of a block request. Preallocated, used again. */
export class DiskCommand implements ScsiCommandOwner {
  readonly scsi: ScsiCommand;
  request: BlockRequest | null = null;
  /** Part of the request this command does, in bytes from the request's offset. */
  startBytes = 0;
  lengthBytes = 0;
  /** Parameter data of our own (UNMAP, WRITE SAME, zeros). */
  readonly parameters: Fragments;
  /** Read data of a part, until the parts are joined. */
  readonly ownDataIn: Fragments;
  /** It is a SYNCHRONIZE CACHE: the request itself, or what follows a write without FUA. */
  isFlush = false;
  /** Mark of the write cache watch that the flush covers. */
  flushCovers = 0;
  /** Times it was sent again, and of these, those at once since the last pause. */
  retries = 0;
  retriesAtOnce = 0;
  firstSentAtMs = 0;
  readonly #owner: DiskCommandOwner;

  constructor(owner: DiskCommandOwner, pool: SlabPool) {
    this.#owner = owner;
    this.parameters = new Fragments(pool);
    this.ownDataIn = new Fragments(pool);
    this.scsi = new ScsiCommand(this, this.ownDataIn);
  }

  /** It is for this part of the request from now on. */
  begin(request: BlockRequest, startBytes: number, lengthBytes: number): void {
    this.request = request;
    this.startBytes = startBytes;
    this.lengthBytes = lengthBytes;
    this.isFlush = false;
    this.retries = 0;
    this.retriesAtOnce = 0;
  }

  scsiCommandDone(): void {
    this.#owner.diskCommandDone(this);
  }

  /** Lets go of everything; it may be used for another request. */
  recycle(): void {
    this.request = null;
    this.scsi.dataOut = null;
    this.scsi.dataIn = this.ownDataIn;
    if (this.ownDataIn.count > 0) this.ownDataIn.clear();
    if (this.parameters.count > 0) this.parameters.clear();
  }
}
