import type { SlabPool } from '../../base/slab.js';
import {
  type BlockDevice,
  BlockRequest,
  type BlockRequestOwner,
  CLIENT_GONE,
} from '../block-device.js';
import type { ScsiDisk } from '../scsi-disk.js';
import { CACHE_LOST } from '../write-cache.js';
import type { RetainedWrites } from './retained-writes.js';

type RetainingDiskHooks = {
  readonly retained: RetainedWrites;
  /** Nothing goes to the disk now. */
  readonly isHeld: () => boolean;
  readonly requestLost: (request: BlockRequest) => void;
  readonly requestFailed: (request: BlockRequest) => void;
};

/**
 * A disk whose acknowledged writes are retained until a flush covers them. Writes wait here while
 * there is no room to retain them; and what no client flushes is flushed unasked, so that there is
 * room and the time for which a write is at risk has an end.
 */
export class RetainingDisk implements BlockDevice, BlockRequestOwner {
  /** No client waits for a flush of ours: it is not sent again when it is lost. */
  readonly isGone = true;
  readonly #disk: ScsiDisk;
  readonly #retained: RetainedWrites;
  readonly #hooks: RetainingDiskHooks;
  readonly #flush: BlockRequest;
  #isFlushing = false;
  /** Writes that wait for room, in their order. */
  #waiting: BlockRequest[] = [];

  constructor(disk: ScsiDisk, pool: SlabPool, hooks: RetainingDiskHooks) {
    this.#disk = disk;
    this.#hooks = hooks;
    this.#retained = hooks.retained;
    this.#flush = new BlockRequest(this, pool);
    this.#flush.operation = 'flush';
    this.#retained.flush = () => this.#flushUnasked();
    this.#retained.roomFound = () => this.#goOn();
  }

  get sizeBytes(): number {
    return this.#disk.sizeBytes;
  }
  get blockSizeBytes(): number {
    return this.#disk.blockSizeBytes;
  }
  get readOnly(): boolean {
    return this.#disk.readOnly;
  }

  submit(request: BlockRequest): void {
    if (request.writes && this.#retains && !this.#hasRoom(request)) {
      this.#waiting.push(request);
      this.#retained.isAwaited = true;
      this.#flushUnasked();
      return;
    }
    this.#disk.submit(request);
  }

  clientCame(owner: BlockRequestOwner): void {
    this.#disk.clientCame(owner);
  }

  clientGone(owner: BlockRequestOwner): void {
    this.#takeBack((request) => request.owner === owner);
    this.#disk.clientGone(owner);
  }

  /** Nothing may be sent for now: writes that wait for room are held. */
  recall(): void {
    this.#takeBack(() => true);
  }

  /** The disk is not used any more. */
  close(): void {
    this.recall();
    this.#retained.close();
  }

  /** A flush of ours has ended. */
  blockRequestDone({ errno, reason }: BlockRequest): void {
    this.#isFlushing = false;
    if (errno === null) {
      this.#goOn();
    } else if (reason === CLIENT_GONE || reason === CACHE_LOST) {
      this.#retained.flushDeferred();
    } else {
      // What the disk says of the flush it would have said to the next one of a client.
      this.#disk.cache.retainedFailed();
      this.#hooks.requestFailed(this.#flush);
    }
  }

  /** A write has to be retained, or to be noted because others are. */
  get #retains(): boolean {
    const { facts } = this.#disk;
    return facts.writeCacheEnabled || this.#retained.isAlways || !this.#retained.isEmpty;
  }

  #hasRoom(request: BlockRequest): boolean {
    return this.#waiting.length === 0 && this.#retained.takeRoom(request);
  }

  #goOn(): void {
    for (;;) {
      const [first] = this.#waiting;
      if (first === undefined) {
        this.#retained.isAwaited = false;
        return;
      }
      if (!this.#retained.takeRoom(first)) break;
      this.#waiting.shift();
      this.#disk.submit(first);
    }
    this.#flushUnasked();
  }

  #flushUnasked(): void {
    if (this.#isFlushing || this.#hooks.isHeld() || this.#retained.isEmpty) return;
    this.#isFlushing = true;
    this.#disk.submit(this.#flush);
  }

  #takeBack(isTaken: (request: BlockRequest) => boolean): void {
    const taken = this.#waiting.filter(isTaken);
    if (taken.length === 0) return;
    this.#waiting = this.#waiting.filter((request) => !isTaken(request));
    for (const request of taken) this.#hooks.requestLost(request);
  }
}
