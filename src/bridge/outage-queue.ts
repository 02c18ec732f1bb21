import type { Clock } from '../base/clock.js';
import { AbandonedRequests } from './abandoned-requests.js';
import {
  type BlockDevice,
  type BlockRequest,
  type BlockRequestOwner,
  CLIENT_GONE,
  REPLAY_LOST,
} from './block-device.js';

type OutageMode = 'open' | 'holding' | 'failing';

/**
 * Times a request may be lost while the session continues (damaged replies, aborted tasks, a logout
 * under way) before its client gets an error. With the pauses below that is more than 20 seconds.
 */
export const LOSSES_MAX = 16;
const PAUSE_FIRST_MS = 100;
const PAUSE_MAX_MS = 2000;

/**
 * Stands before a disk: passes requests on while the session is logged in, holds them while it is
 * away, fails them when the disk has been removed. Requests the link lost on their way come
 * back here and are sent again in the order in which they arrived. How many there can be is the
 * clients' budget's business.
 */
export class OutageQueue implements BlockDevice {
  readonly #disk: BlockDevice;
  readonly #clock: Clock;
  readonly #onFailed: (request: BlockRequest) => void;
  #mode: OutageMode = 'open';
  #held: BlockRequest[] = [];
  readonly #abandoned = new AbandonedRequests();
  #sequence = 0;
  #cancelPause: (() => void) | null = null;
  #pauseEndsAtMs = 0;
  heldBytes = 0;
  /** Held since the process began. */
  heldTotal = 0;
  failReason = '';

  constructor(disk: BlockDevice, clock: Clock, onFailed?: (request: BlockRequest) => void) {
    this.#disk = disk;
    this.#clock = clock;
    this.#onFailed = onFailed ?? (() => undefined);
  }

  requestFailed(request: BlockRequest): void {
    this.#onFailed(request);
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
  /** Requests that wait: for the session, or for the end of one whose client is gone. */
  get heldRequests(): number {
    return this.#held.length + this.#abandoned.waitingCount;
  }

  clientCame(owner: BlockRequestOwner): void {
    this.#disk.clientCame?.(owner);
  }

  submit(request: BlockRequest): void {
    this.#sequence += 1;
    request.sequence = this.#sequence;
    request.losses = 0;
    request.attentions = 0;
    request.awaySinceMs = 0;
    request.wrongTransfers = 0;
    this.#pass(request);
  }

  /** A request that was on its way when the link went. */
  requestLost(request: BlockRequest): void {
    if (request.owner.isGone) {
      request.done('EIO', CLIENT_GONE);
      return;
    }
    if (request.isReplay) {
      request.done('EIO', REPLAY_LOST);
      return;
    }
    if (this.#mode !== 'open') {
      this.#pass(request);
      return;
    }
    // The session continues (a damaged reply, an aborted task): the request is sent again, the
    // first time at once. What keeps losing it may be a session about to end, which says so soon.
    request.losses += 1;
    if (request.losses > LOSSES_MAX) {
      request.done('EIO', `the request was lost ${request.losses} times on its way`);
    } else if (request.losses === 1) {
      this.#send(request);
    } else {
      this.#hold(request);
      this.#pause(PAUSE_FIRST_MS * 2 ** (request.losses - 2));
    }
  }

  hold(): void {
    this.#mode = 'holding';
    this.#endPause();
  }

  /** The same disk is back: everything held goes out, oldest first. */
  release(): void {
    this.#mode = 'open';
    this.#endPause();
    const held = this.#takeHeld();
    for (const request of held) request.losses = 0;
    this.#passOn(held);
  }

  /** The disk is removed: held requests and all that follow fail with EIO. */
  fail(reason: string): void {
    this.#mode = 'failing';
    this.failReason = reason;
    this.#endPause();
    const waiting = this.#abandoned.take();
    for (const request of waiting) this.heldBytes -= dataBytes(request);
    for (const request of inOrder([...waiting, ...this.#takeHeld()])) request.done('EIO', reason);
  }

  /**
   * The client does not wait for its requests any more. Held requests end here, and what is at the
   * target is not sent again: a write sent later could overtake one that the same client sends over
   * its next connection. Until the target is done with it, requests that overlap it wait.
   */
  clientGone(owner: BlockRequestOwner, underWay: readonly BlockRequest[]): void {
    const isGone = (request: BlockRequest) => request.owner === owner;
    const ending = [...this.#held.filter(isGone), ...this.#abandoned.take(owner)];
    this.#held = this.#held.filter((request) => !isGone(request));
    // All of them first: the end of one makes room for requests of others.
    const ended = new Set(ending);
    for (const request of underWay) if (!ended.has(request)) this.#abandoned.add(request);
    for (const request of ending) this.heldBytes -= dataBytes(request);
    for (const request of ending) request.done('EIO', CLIENT_GONE);
    this.#disk.clientGone(owner, underWay);
  }

  abandonedRequestDone(request: BlockRequest): void {
    const waiting = this.#abandoned.ended(request);
    for (const each of waiting) this.heldBytes -= dataBytes(each);
    this.#passOn(waiting);
  }

  /** Requests that waited; the end of one may be the end of another's client. */
  #passOn(requests: readonly BlockRequest[]): void {
    for (const request of requests) {
      if (request.owner.isGone) request.done('EIO', CLIENT_GONE);
      else this.#pass(request);
    }
  }

  #pass(request: BlockRequest): void {
    switch (this.#mode) {
      case 'open':
        this.#send(request);
        return;
      case 'holding':
        this.#hold(request);
        return;
      case 'failing':
        request.done('EIO', this.failReason);
    }
  }

  #send(request: BlockRequest): void {
    if (this.#abandoned.count > 0 && this.#abandoned.keepsBack(request)) {
      this.heldBytes += dataBytes(request);
      return;
    }
    this.#disk.submit(request);
  }

  #hold(request: BlockRequest): void {
    this.#held.push(request);
    this.heldBytes += dataBytes(request);
    this.heldTotal += 1;
  }

  #takeHeld(): BlockRequest[] {
    const held = this.#held;
    this.#held = [];
    for (const request of held) this.heldBytes -= dataBytes(request);
    return inOrder(held);
  }

  /** One pause at a time, the shortest requested; held requests then continue. */
  #pause(wantedMs: number): void {
    const endsAtMs = this.#clock.nowMs() + Math.min(wantedMs, PAUSE_MAX_MS);
    if (this.#cancelPause !== null && this.#pauseEndsAtMs <= endsAtMs) return;
    this.#endPause();
    this.#pauseEndsAtMs = endsAtMs;
    this.#cancelPause = this.#clock.at(endsAtMs, () => {
      this.#cancelPause = null;
      this.#passOn(this.#takeHeld());
    });
  }

  #endPause(): void {
    this.#cancelPause?.();
    this.#cancelPause = null;
  }
}

function inOrder(requests: BlockRequest[]): BlockRequest[] {
  return requests.sort((left, right) => left.sequence - right.sequence);
}

/** Bytes that a request moves; a trim names many and moves none. */
function dataBytes({ operation, lengthBytes }: BlockRequest): number {
  return operation === 'read' || operation === 'write' ? lengthBytes : 0;
}
