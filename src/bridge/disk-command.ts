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
  /** Parameter data of our own (UNMAP, WRITE SAME). */
  readonly parameters: Fragments;
  /** Read data of a part, until the parts are joined. */
  readonly ownDataIn: Fragments;
  /** The extra SYNCHRONIZE CACHE after a write whose disk has no FUA. */
  isFlush = false;
  /** Cached writes a flush covers: those acknowledged before it was sent. */
  flushCovers = 0;
  retries = 0;
  firstSentAtMs = 0;
  readonly #owner: DiskCommandOwner;

  constructor(owner: DiskCommandOwner, pool: SlabPool) {
    this.#owner = owner;
    this.parameters = new Fragments(pool);
    this.ownDataIn = new Fragments(pool);
    this.scsi = new ScsiCommand(this, this.ownDataIn);
  }

  scsiCommandDone(): void {
    this.#owner.diskCommandDone(this);
  }
}
