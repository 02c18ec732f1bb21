import type { Clock } from '../../base/clock.js';
import { FRAGMENT_NUMBERS, type Fragments } from '../../base/fragments.js';
import { SLAB_BYTES, type SlabPool } from '../../base/slab.js';
import type { BlockRequest } from '../block-device.js';
import { KeptSlabs } from './kept-slabs.js';
import { type NewestRange, newestRanges } from './newest-ranges.js';
import {
  ENTRY_PIECES_MAX,
  RETAINED_ENTRIES_MAX,
  RETAINED_INDEX_BYTES,
  type RetainedEntry,
  RetainedIndex,
  RetainedKind,
} from './retained-index.js';
import { type RecoveredWrites, RetainedShare } from './retained-memory.js';

/**
 * A write of at least this many bytes stays where its client put it; a smaller one is copied. A
 * copy of 4 KiB costs a tenth of all that such a write costs.
 */
const KEPT_BYTES_MIN = 4096;
/** How long an acknowledged write waits for a client's flush before it is flushed unasked. */
export const RETAINED_MS_MAX = 5000;
/** Pause after a flush that could not be done. */
const FLUSH_RETRY_MS = 1000;
/** Why retained writes are written again. */
export type ReplayReason = 'sessionLost' | 'cacheLost' | 'takenOver';

/** A retained write, and where its bytes are: in our slabs (null), or those of a process before. */
export type RetainedSource = RetainedEntry & {
  readonly slab: ((index: number) => Uint8Array) | null;
};

/**
 * Acknowledged writes of one disk that no flush covers, with their bytes: what a target that loses
 * its volatile cache would lose (NFS's UNSTABLE and COMMIT, RFC 1813 §3.3.7 and §3.3.21, for a
 * block device). After a loss, or a reconnect after which it is unknown, they are written again.
 *
 * Nothing is looked up when a write is acknowledged: it is added at the end, and only a replay
 * finds out which write is the newest for each block.
 */
export class RetainedWrites {
  /** Even if the disk reports no volatile cache: it may lie. */
  readonly isAlways: boolean;
  /** Why they have to be written again before anything else is read or written; null: not yet. */
  replayReason: ReplayReason | null = null;
  /** Bytes of acknowledged writes that are kept here. */
  bytes = 0;
  /** Replays so far that were finished. */
  replays = 0;
  /** Writes wait for room. */
  isAwaited = false;
  /** The process that comes after this one does not find those of this one. */
  endsWithUs = false;
  /** Sends a flush that no client asked for. */
  flush: () => void = () => undefined;
  /** There is room again for writes that wait. */
  roomFound: () => void = () => undefined;
  readonly #clock: Clock;
  readonly #memory: () => Uint8Array | null;
  readonly #closed: (release: () => void) => void;
  readonly #bytesWanted: number;
  readonly #share: RetainedShare;
  #index: RetainedIndex | null = null;
  #isWhole = true;
  /** False if the disk is removed, or not used any more: requests of gone clients may still end. */
  keeps = true;
  #recovered: RecoveredWrites[] = [];
  /** Room that writes under way have taken. */
  #bytesTaken = 0;
  #entriesTaken = 0;
  readonly #slabs: KeptSlabs;
  /** Instant since which the oldest entry may be here. */
  #sinceMs = 0;
  #flushBeganAtMs = 0;
  #cancelTimer: (() => void) | null = null;
  readonly #release = (slab: number) => this.#slabs.letGo(slab);

  /** `memory` has RETAINED_INDEX_BYTES of zeros that outlive the process, or is null. */
  constructor(options: {
    readonly pool: SlabPool;
    readonly clock: Clock;
    readonly bytesMax: number;
    readonly isAlways: boolean;
    readonly share?: RetainedShare;
    readonly memory?: () => Uint8Array | null;
    /**
     * `release` gives the bytes back, once no process will look for them in that memory any more.
     */
    readonly closed?: (release: () => void) => void;
  }) {
    this.#clock = options.clock;
    this.#bytesWanted = options.bytesMax;
    this.#share = options.share ?? new RetainedShare();
    this.isAlways = options.isAlways;
    this.#memory = options.memory ?? (() => null);
    this.#closed = options.closed ?? ((release) => release());
    this.#slabs = new KeptSlabs(options.pool);
  }

  /** Beyond it writes wait; from half of it on a flush is sent. */
  get bytesMax(): number {
    return this.#share.bytesFor(this.#bytesWanted);
  }

  get isEmpty(): boolean {
    return this.#count === 0 && this.#recovered.length === 0;
  }

  /** Milliseconds for which the oldest retained write may have been waiting for a flush. */
  get ageMs(): number {
    return this.isEmpty ? 0 : this.#clock.nowMs() - this.#sinceMs;
  }

  /** True if a write of these bytes may begin; a single one may be of any size. */
  takeRoom(request: BlockRequest): boolean {
    const entries = entriesOf(request);
    const bytes = dataBytesOf(request);
    const isAlone = this.#count + this.#entriesTaken === 0;
    const fits =
      this.bytes + this.#bytesTaken + bytes <= this.bytesMax &&
      this.#count + this.#entriesTaken + entries <= RETAINED_ENTRIES_MAX;
    if (!fits && !isAlone) return false;
    request.retainedEntries = entries;
    this.#bytesTaken += bytes;
    this.#entriesTaken += entries;
    return true;
  }

  /** The write has ended, however. */
  giveRoom(request: BlockRequest): void {
    this.#bytesTaken -= dataBytesOf(request);
    this.#entriesTaken -= request.retainedEntries;
    request.retainedEntries = 0;
  }

  /** The write is about to be acknowledged; `number` says which flushes cover it. */
  keep(request: BlockRequest, number: number): void {
    if (!this.keeps) return;
    const index = this.#openIndex();
    if (this.isEmpty) this.#begins();
    if (request.operation === 'write') {
      this.#keepData(index, request, number);
    } else {
      const kind = request.noHole ? RetainedKind.zeroesAllocated : RetainedKind.zeroes;
      index.begin(kind, request.offsetBytes, request.lengthBytes);
      index.commit(number);
    }
    const isHalfFull = this.bytes > this.bytesMax / 2 || index.count > RETAINED_ENTRIES_MAX / 2;
    if (isHalfFull || this.isAwaited) this.flush();
  }

  /** What is retained of the range must not be written again: something newer is there for good. */
  supersede(request: BlockRequest, number: number): void {
    if (this.isEmpty) {
      // No flush is due that would let go the requests that wait for the room that the request had.
      if (this.isAwaited) this.roomFound();
      return;
    }
    const index = this.#openIndex();
    index.begin(RetainedKind.stable, request.offsetBytes, request.lengthBytes);
    index.commit(number);
  }

  /** As `supersede`, if there is room to note it. */
  forget(request: BlockRequest, number: number): void {
    if (this.#count + this.#entriesTaken < RETAINED_ENTRIES_MAX) this.supersede(request, number);
  }

  flushBegins(): void {
    this.#flushBeganAtMs = this.#clock.nowMs();
  }

  /** A flush has succeeded that covers the writes up to `number`. */
  flushed(number: number): void {
    const index = this.#index;
    if (index === null || index.count === 0) return;
    while (index.count > 0 && index.oldestNumber <= number) this.#dropOldest(index);
    this.#sinceMs = this.#flushBeganAtMs;
    if (index.count === 0) this.#ends();
    this.roomFound();
  }

  /** A flush of our own could not be done: it is tried again. */
  flushDeferred(): void {
    this.#setTimer(FLUSH_RETRY_MS);
  }

  /** Whether all acknowledged writes that no flush covers are retained. */
  setWhole(isWhole: boolean): void {
    this.#isWhole = isWhole;
    // An unused index says that nothing was written.
    if (isWhole) this.#index?.setWhole(isWhole);
    else this.#openIndex().setWhole(isWhole);
  }

  /** What is retained has to be written again, if anything is. */
  replayDue(reason: ReplayReason): void {
    if (this.isEmpty) return;
    // A loss that is known is known whatever came before it.
    if (reason === 'cacheLost') this.replayReason = reason;
    else this.replayReason ??= reason;
  }

  /** All of it has been written again. */
  replayed(): void {
    this.replays += 1;
    this.clear();
  }

  /** What is retained is on the disk, or of no use any more. */
  clear(): void {
    const index = this.#index;
    while (index !== null && index.count > 0) this.#dropOldest(index);
    for (const { drained } of this.#recovered) drained();
    this.#recovered = [];
    this.replayReason = null;
    this.#ends();
    this.roomFound();
  }

  /** What a process before this one retained has to be written again first. */
  adopt(recovered: RecoveredWrites): void {
    if (this.isEmpty) this.#sinceMs = this.#clock.nowMs();
    this.#recovered.push(recovered);
    this.replayDue('takenOver');
  }

  /** The newest write of each block, in order of their place. */
  newest(): NewestRange<RetainedSource>[] {
    const sources: RetainedSource[] = [];
    for (const { entries, slab } of this.#recovered) {
      for (const entry of entries) sources.push({ ...entry, slab });
    }
    for (const entry of this.#index?.entries() ?? []) sources.push({ ...entry, slab: null });
    return newestRanges(sources).filter(({ source }) => source.kind !== RetainedKind.stable);
  }

  /** Nothing is retained any more, and no timer is set. What outlives the process stays. */
  close(): void {
    this.keeps = false;
    this.#recovered = [];
    this.flush = () => undefined;
    this.roomFound = () => undefined;
    this.#stopTimer();
    const index = this.#index;
    this.#index = null;
    if (index !== null) {
      this.#share.disks -= 1;
      const kept: number[] = [];
      for (const { pieces } of index.entries()) {
        for (let at = 0; at < pieces.length; at += FRAGMENT_NUMBERS) kept.push(pieces[at] ?? 0);
      }
      this.#closed(() => {
        for (const slab of kept) this.#slabs.letGo(slab);
      });
    }
    this.bytes = 0;
    this.#slabs.endCopying();
  }

  get #count(): number {
    return this.#index?.count ?? 0;
  }

  #openIndex(): RetainedIndex {
    if (this.#index === null) {
      const memory = this.#memory();
      this.endsWithUs = memory === null;
      this.#index = new RetainedIndex(memory ?? new Uint8Array(RETAINED_INDEX_BYTES));
      this.#index.setWhole(this.#isWhole);
      this.#share.disks += 1;
    }
    return this.#index;
  }

  #keepData(index: RetainedIndex, request: BlockRequest, number: number): void {
    const { data, lengthBytes } = request;
    const isKept =
      lengthBytes >= KEPT_BYTES_MIN &&
      data.count <= ENTRY_PIECES_MAX * entriesOf(request) &&
      this.#slabs.mayKeep(this.bytes);
    this.bytes += lengthBytes;
    if (isKept) this.#keepPieces(index, request, number);
    else this.#copy(index, request, number);
  }

  #keepPieces(index: RetainedIndex, { data, offsetBytes }: BlockRequest, number: number): void {
    let atBytes = offsetBytes;
    for (let first = 0; first < data.count; first += ENTRY_PIECES_MAX) {
      const end = Math.min(data.count, first + ENTRY_PIECES_MAX);
      const lengthBytes = bytesOf(data, first, end);
      index.begin(RetainedKind.data, atBytes, lengthBytes);
      for (let at = first * FRAGMENT_NUMBERS; at < end * FRAGMENT_NUMBERS; at += FRAGMENT_NUMBERS) {
        const slab = data.table[at] ?? 0;
        index.piece(slab, data.table[at + 1] ?? 0, data.table[at + 2] ?? 0);
        this.#slabs.keep(slab);
      }
      index.commit(number);
      atBytes += lengthBytes;
    }
  }

  /** Copies the bytes behind those of the small writes before. */
  #copy(index: RetainedIndex, request: BlockRequest, number: number): void {
    const { data, offsetBytes, lengthBytes } = request;
    const slabs = this.#slabs;
    for (let doneBytes = 0; doneBytes < lengthBytes; ) {
      const sizeBytes = slabs.copy(data, doneBytes);
      index.begin(RetainedKind.data, offsetBytes + doneBytes, sizeBytes);
      index.piece(slabs.slab, slabs.copiedAt, sizeBytes);
      slabs.keep(slabs.slab);
      index.commit(number);
      doneBytes += sizeBytes;
    }
  }

  #dropOldest(index: RetainedIndex): void {
    this.bytes -= index.dropOldest(this.#release);
  }

  #begins(): void {
    this.#sinceMs = this.#clock.nowMs();
    this.#setTimer(RETAINED_MS_MAX);
  }

  #ends(): void {
    this.#stopTimer();
    this.#slabs.endCopying();
  }

  #setTimer(ms: number): void {
    this.#stopTimer();
    this.#cancelTimer = this.#clock.at(this.#clock.nowMs() + ms, () => {
      this.#cancelTimer = null;
      if (this.isEmpty) return;
      this.#setTimer(RETAINED_MS_MAX);
      this.flush();
    });
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = null;
  }
}

/** Entries that a write needs at most. */
function entriesOf({ operation, lengthBytes }: BlockRequest): number {
  return operation === 'write' ? 2 + Math.floor(lengthBytes / SLAB_BYTES) : 1;
}

function dataBytesOf({ operation, lengthBytes, fua }: BlockRequest): number {
  return operation === 'write' && !fua ? lengthBytes : 0;
}

function bytesOf(data: Fragments, first: number, end: number): number {
  let bytes = 0;
  for (let piece = first; piece < end; piece += 1) {
    bytes += data.table[piece * FRAGMENT_NUMBERS + 2] ?? 0;
  }
  return bytes;
}
