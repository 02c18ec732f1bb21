import type { BlockRequest, BlockRequestOwner } from './block-device.js';

/**
 * Requests that change the disk, whose clients are gone while the requests are still at the target,
 * and the requests of others that wait for their end. Which of two that overlap the target does
 * last is its choice, and the older one has no client any more: the newer one must not be
 * acknowledged before.
 */
export class AbandonedRequests {
  /** Each abandoned request with those that wait for it. */
  readonly #waiting = new Map<BlockRequest, BlockRequest[]>();
  /** Abandoned requests; read for each request that is sent. */
  count = 0;
  /** Requests that wait. */
  waitingCount = 0;

  /** The request is at the target, and its client is gone. */
  add(request: BlockRequest): void {
    const changes = request.writes || request.operation === 'trim';
    if (!changes || this.#waiting.has(request)) return;
    this.#waiting.set(request, []);
    this.count += 1;
  }

  /** True when the request has to wait; `ended` gives it back. */
  keepsBack(request: BlockRequest): boolean {
    if (request.operation === 'flush') return false;
    for (const [abandoned, waiting] of this.#waiting) {
      if (!overlaps(abandoned, request)) continue;
      waiting.push(request);
      this.waitingCount += 1;
      return true;
    }
    return false;
  }

  /** An abandoned request has ended. Returns those that waited for it, oldest first. */
  ended(request: BlockRequest): BlockRequest[] {
    const waiting = this.#waiting.get(request);
    if (waiting === undefined) return [];
    this.#waiting.delete(request);
    this.count -= 1;
    this.waitingCount -= waiting.length;
    return waiting.sort((left, right) => left.sequence - right.sequence);
  }

  /** Takes the requests that wait out of the queue: all, or those of one client. */
  take(owner?: BlockRequestOwner): BlockRequest[] {
    const taken: BlockRequest[] = [];
    for (const [abandoned, waiting] of this.#waiting) {
      const isTaken = (request: BlockRequest) => owner === undefined || request.owner === owner;
      taken.push(...waiting.filter(isTaken));
      this.#waiting.set(
        abandoned,
        waiting.filter((request) => !isTaken(request)),
      );
    }
    this.waitingCount -= taken.length;
    return taken;
  }
}

function overlaps(left: BlockRequest, right: BlockRequest): boolean {
  return (
    left.offsetBytes < right.offsetBytes + right.lengthBytes &&
    right.offsetBytes < left.offsetBytes + left.lengthBytes
  );
}
