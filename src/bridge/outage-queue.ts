import type { BlockDevice, BlockRequest } from './block-device.js';

export type OutageMode = 'open' | 'holding' | 'failing';

/**
 * Stands before a disk: passes requests on while the session is there, holds them while it is
 * away, fails them when the disk has been taken away. Requests the link lost on their way come
 * back here and are sent again in the order in which they arrived. How many there can be is the
 * clients' budget's business.
 */
export class OutageQueue implements BlockDevice {
  readonly #disk: BlockDevice;
  #mode: OutageMode = 'open';
  #held: BlockRequest[] = [];
  #sequence = 0;
  heldBytes = 0;
  /** Held since the process began. */
  heldTotal = 0;
  failReason = '';

  constructor(disk: BlockDevice) {
    this.#disk = disk;
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
  get mode(): OutageMode {
    return this.#mode;
  }
  get heldRequests(): number {
    return this.#held.length;
  }

  submit(request: BlockRequest): void {
    this.#sequence += 1;
    request.sequence = this.#sequence;
    switch (this.#mode) {
      case 'open':
        this.#disk.submit(request);
        return;
      case 'holding':
        this.#hold(request);
        return;
      case 'failing':
        request.done('EIO', this.failReason);
    }
  }

  /** A request that was on its way when the link went. */
  requestLost(request: BlockRequest): void {
    switch (this.#mode) {
      case 'open':
        // The session goes on (a damaged reply, an aborted task): the request is simply sent again.
        this.#disk.submit(request);
        return;
      case 'holding':
        this.#hold(request);
        return;
      case 'failing':
        request.done('EIO', this.failReason);
    }
  }

  hold(): void {
    this.#mode = 'holding';
  }

  /** The same disk is back: everything held goes out, oldest first. */
  release(): void {
    this.#mode = 'open';
    const held = this.#takeHeld();
    for (const request of held) this.requestLost(request);
  }

  /** The disk is taken away: held requests and all that follow fail with EIO. */
  fail(reason: string): void {
    this.#mode = 'failing';
    this.failReason = reason;
    for (const request of this.#takeHeld()) request.done('EIO', reason);
  }

  #hold(request: BlockRequest): void {
    this.#held.push(request);
    this.heldBytes += request.lengthBytes;
    this.heldTotal += 1;
  }

  #takeHeld(): BlockRequest[] {
    const held = this.#held;
    this.#held = [];
    this.heldBytes = 0;
    return held.sort((left, right) => left.sequence - right.sequence);
  }
}
