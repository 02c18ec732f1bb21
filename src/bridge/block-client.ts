import { deferred } from '../base/deferred.js';
import { BlockError, UsageError } from '../base/errors.js';
import { SLAB_BYTES, type SlabPool } from '../base/slab.js';
import { SlabWriter } from '../base/slab-writer.js';
import { type BlockDevice, BlockRequest, type BlockRequestOwner } from './block-device.js';
import type { LogicalUnit } from './logical-unit.js';
import type { UnitBudget } from './unit-budget.js';

/** Bytes of one request; more is requested piece by piece. */
const PIECE_BYTES_MAX = 4 << 20;

/** What all clients of one session share. */
type ClientResources = { readonly pool: SlabPool };

export type BlockOptions = {
  /**
   * Ends the wait, not the work: a write that was sent may or may not be done. Whichever it is, it
   * is before all later requests.
   */
  readonly signal?: AbortSignal | undefined;
};
export type WriteOptions = BlockOptions & {
  /** On stable storage before the promise resolves (forced unit access). */
  readonly fua?: boolean | undefined;
};

/** Reads and writes one unit in this process, with promises; a copy is made each way. */
export class BlockClient {
  readonly #unit: LogicalUnit;
  readonly #resources: ClientResources;

  constructor(unit: LogicalUnit, resources: ClientResources) {
    this.#unit = unit;
    this.#resources = resources;
  }

  /** Whole blocks. Rejects with BlockError, UsageError for a wrong range, or `signal`'s reason. */
  async read(offset: number, length: number, options: BlockOptions = {}): Promise<Buffer> {
    this.#checkRange(offset, length);
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const size = Math.min(PIECE_BYTES_MAX, length - done);
      const request = await this.#run({ operation: 'read', offset: offset + done, size }, options);
      request.copyTo(bytes, done);
      done += size;
    }
    return bytes;
  }

  /** Whole blocks; `data` must not change until the promise is settled. */
  async write(offset: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    this.#checkRange(offset, data.length);
    for (let done = 0; done < data.length; ) {
      const size = Math.min(PIECE_BYTES_MAX, data.length - done);
      const bytes = data.subarray(done, done + size);
      await this.#run({ operation: 'write', offset: offset + done, size, bytes }, options);
      done += size;
    }
  }

  /** What was acknowledged before the call is on stable storage after it. */
  async flush(options: BlockOptions = {}): Promise<void> {
    await this.#run({ operation: 'flush', offset: 0, size: 0 }, options);
  }

  #checkRange(offset: number, length: number): void {
    const { blockSizeBytes, sizeBytes } = this.#unit.queue;
    const isWhole = [offset, length].every(
      (value) => value >= 0 && value < Number.POSITIVE_INFINITY && value % blockSizeBytes === 0,
    );
    if (isWhole && offset + length <= sizeBytes) return;
    throw new UsageError(
      `${length} bytes at offset ${offset} of LUN ${this.#unit.lun} are not whole blocks of ` +
        `${blockSizeBytes} bytes inside its ${sizeBytes} bytes.`,
    );
  }

  async #run(work: Work, options: WriteOptions): Promise<PendingRequest> {
    const { signal } = options;
    signal?.throwIfAborted();
    await this.#room(signal);
    const { queue, budget } = this.#unit;
    const fua = options.fua === true;
    const pending = new PendingRequest({ queue, budget, pool: this.#resources.pool }, work, fua);
    queue.submit(pending.request);
    try {
      await orAborted(pending.done, signal);
    } finally {
      pending.nobodyWaits();
    }
    return pending;
  }

  /** Back-pressure: all clients of a session share a budget of requests and bytes. */
  async #room(signal: AbortSignal | undefined): Promise<void> {
    const { budget } = this.#unit;
    while (!budget.hasRoom) {
      let found = () => {};
      const room = new Promise<void>((resolve) => {
        found = resolve;
      });
      budget.whenRoom(found);
      await orAborted(room, signal).finally(() => budget.forget(found));
    }
  }
}

type Place = {
  readonly queue: BlockDevice;
  readonly budget: UnitBudget;
  readonly pool: SlabPool;
};

type Work = {
  readonly operation: 'read' | 'write' | 'flush';
  readonly offset: number;
  readonly size: number;
  readonly bytes?: Uint8Array;
};

/** One request from its submission to its answer; the slabs it holds go back with the answer. */
class PendingRequest implements BlockRequestOwner {
  readonly request: BlockRequest;
  isGone = false;
  readonly #place: Place;
  readonly #size: number;
  #isAnswered = false;
  #answer: Buffer = Buffer.alloc(0);
  /** May be rejected when no caller waits any more, because the signal was aborted. */
  readonly #done = deferred<void>();

  constructor(place: Place, work: Work, fua: boolean) {
    this.#place = place;
    this.#size = work.size;
    this.request = new BlockRequest(this, place.pool);
    this.request.operation = work.operation;
    this.request.offsetBytes = work.offset;
    this.request.lengthBytes = work.size;
    this.request.fua = fua && work.operation === 'write';
    if (work.bytes !== undefined) this.#fill(work.bytes);
    place.budget.take(work.size);
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  blockRequestDone(request: BlockRequest): void {
    const { errno, reason, operation } = request;
    if (errno === null && operation === 'read') this.#answer = request.data.toBuffer();
    request.data.clear();
    this.#isAnswered = true;
    if (this.isGone) this.#place.queue.abandonedRequestDone?.(request);
    this.#place.budget.give(this.#size);
    if (errno === null) this.#done.resolve();
    else this.#done.reject(new BlockError(errno, `${operation}: ${reason}`));
  }

  /** Without its answer it is a request of a client that is gone. */
  nobodyWaits(): void {
    if (this.#isAnswered) return;
    this.isGone = true;
    this.#place.queue.clientGone(this, [this.request]);
  }

  copyTo(into: Buffer, at: number): void {
    this.#answer.copy(into, at);
  }

  #fill(bytes: Uint8Array): void {
    const writer = new SlabWriter(this.#place.pool);
    for (let at = 0; at < bytes.length; at += SLAB_BYTES) {
      writer.write(bytes.subarray(at, at + SLAB_BYTES), this.request.data);
    }
    writer.close();
  }
}

/** The result of `work`, unless `signal` aborts first. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let stop = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
