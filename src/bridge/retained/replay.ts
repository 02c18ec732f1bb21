import { SLAB_BYTES, type SlabPool } from '../../base/slab.js';
import { BlockRequest, type BlockRequestOwner, CLIENT_GONE, REPLAY_LOST } from '../block-device.js';
import type { ScsiDisk } from '../scsi-disk.js';
import type { NewestRange } from './newest-ranges.js';
import { RetainedKind } from './retained-index.js';
import type { RetainedSource, RetainedWrites } from './retained-writes.js';

/** Requests under way at a time, and bytes of one. */
const REQUESTS_MAX = 16;
const REQUEST_BYTES_MAX = SLAB_BYTES;

export type ReplayEnd =
  /** All of it is on the medium. */
  | { readonly is: 'done'; readonly requests: number; readonly bytes: number }
  /** The session went, or the disk has to be probed again: it begins anew later. */
  | { readonly is: 'lost' }
  /** The disk answers that it cannot serve. */
  | { readonly is: 'away' }
  /** The disk does not take it. */
  | { readonly is: 'failed'; readonly why: string };

type Range = NewestRange<RetainedSource>;

/**
 * Writes again what is retained of a disk, and has it written down. Nothing else is under way at
 * the disk meanwhile, so that the ranges, none of which overlaps another, may go in any order.
 */
export class Replay implements BlockRequestOwner {
  /** It has been interrupted: nothing of it is sent any more. */
  isGone = false;
  readonly #disk: ScsiDisk;
  readonly #pool: SlabPool;
  readonly #retained: RetainedWrites;
  #ranges: readonly Range[] = [];
  #powerEvents = 0;
  readonly #onProgress: () => void;
  /** The next range, and how far into it. */
  #next = 0;
  #atBytes = 0;
  #underWay = 0;
  #requests = 0;
  #bytes = 0;
  #isFlushed = false;
  #end: ReplayEnd | null = null;
  #resolve: (end: ReplayEnd) => void = () => undefined;

  /** `onProgress` is called for each request that the disk has done. */
  constructor(
    disk: ScsiDisk,
    pool: SlabPool,
    options: {
      readonly retained: RetainedWrites;
      readonly onProgress: () => void;
    },
  ) {
    this.#disk = disk;
    this.#pool = pool;
    this.#retained = options.retained;
    this.#onProgress = options.onProgress;
  }

  /** Waits for what is at the target, which may be acknowledged, and so retained, or be newer. */
  async run(): Promise<ReplayEnd> {
    await this.#disk.underWay.idle();
    if (this.isGone) return { is: 'lost' };
    this.#ranges = this.#retained.newest();
    this.#powerEvents = this.#disk.cache.powerEvents;
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#atBytes = this.#ranges[0]?.startBytes ?? 0;
      this.#goOn();
    });
  }

  /** The disk has to be probed first, or the session is gone. */
  interrupt(): void {
    this.isGone = true;
    this.#end ??= { is: 'lost' };
  }

  blockRequestDone(request: BlockRequest): void {
    this.#underWay -= 1;
    request.data.clear();
    if (request.errno === null) {
      this.#onProgress();
      if (request.operation === 'flush') this.#isFlushed = true;
    } else {
      const end = endOf(request);
      // The report that the disk cannot serve has interrupted the replay already.
      this.#end = end.is === 'away' ? end : (this.#end ?? end);
    }
    this.#goOn();
  }

  #goOn(): void {
    while (this.#end === null && this.#underWay < REQUESTS_MAX) {
      const request = this.#nextRequest();
      if (request === null) break;
      this.#submit(request);
    }
    if (this.#underWay > 0) return;
    if (this.#end === null && !this.#isFlushed) {
      this.#submit(this.#newRequest('flush'));
      return;
    }
    this.#resolve(this.#end ?? this.#done());
  }

  /** All is on the medium, unless the disk has lost its cache meanwhile. */
  #done(): ReplayEnd {
    const { cache } = this.#disk;
    if (cache.powerEvents !== this.#powerEvents) return { is: 'lost' };
    cache.replayed();
    return { is: 'done', requests: this.#requests, bytes: this.#bytes };
  }

  #submit(request: BlockRequest): void {
    this.#underWay += 1;
    this.#disk.submit(request);
  }

  #newRequest(operation: 'write' | 'writeZeroes' | 'flush'): BlockRequest {
    const request = new BlockRequest(this, this.#pool);
    request.operation = operation;
    request.isReplay = true;
    return request;
  }

  /** The next write: ranges that follow each other are one. Null at their end. */
  #nextRequest(): BlockRequest | null {
    const first = this.#ranges[this.#next];
    if (first === undefined) return null;
    const isData = first.source.kind === RetainedKind.data;
    const request = this.#newRequest(isData ? 'write' : 'writeZeroes');
    request.offsetBytes = this.#atBytes;
    if (isData) {
      this.#gather(request);
      request.lengthBytes = request.data.byteLength;
    } else {
      request.noHole = first.source.kind === RetainedKind.zeroesAllocated;
      request.lengthBytes = first.endBytes - this.#atBytes;
      this.#nextRange();
    }
    this.#requests += 1;
    this.#bytes += request.lengthBytes;
    return request;
  }

  #gather(request: BlockRequest): void {
    for (;;) {
      const range = this.#ranges[this.#next];
      const room = REQUEST_BYTES_MAX - request.data.byteLength;
      const end = request.offsetBytes + request.data.byteLength;
      const goesOn = range?.source.kind === RetainedKind.data && this.#atBytes === end;
      if (range === undefined || !goesOn || room === 0) return;
      const lengthBytes = Math.min(room, range.endBytes - this.#atBytes);
      appendBytes(request, range.source, this.#atBytes - range.source.offsetBytes, lengthBytes);
      this.#atBytes += lengthBytes;
      if (this.#atBytes === range.endBytes) this.#nextRange();
    }
  }

  #nextRange(): void {
    this.#next += 1;
    this.#atBytes = this.#ranges[this.#next]?.startBytes ?? 0;
  }
}

function endOf({ reason, awaySinceMs }: BlockRequest): ReplayEnd {
  if (reason !== REPLAY_LOST && reason !== CLIENT_GONE) return { is: 'failed', why: reason };
  return { is: awaySinceMs > 0 ? 'away' : 'lost' };
}

/** Adds `length` bytes of what a write had `from` its beginning. */
function appendBytes(
  { data }: BlockRequest,
  { pieces, slab }: RetainedSource,
  from: number,
  length: number,
): void {
  let skip = from;
  let left = length;
  for (let at = 0; left > 0 && at < pieces.length; at += 3) {
    const [index = 0, offset = 0, size = 0] = pieces.slice(at, at + 3);
    const take = Math.min(size - skip, left);
    if (take > 0) {
      if (slab === null) data.append(index, offset + skip, take);
      else data.appendCopy(slab(index).subarray(offset + skip, offset + skip + take));
      left -= take;
    }
    skip = Math.max(0, skip - size);
  }
}
