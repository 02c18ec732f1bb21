import { ZERO } from './cell-content.js';
import { type ClientId, LossListeners } from './loss-listeners.js';

/** One value a cell has had, oldest first. `ackedAt` null: it was never acknowledged. */
type Version = {
  readonly values: ReadonlySet<number>;
  readonly ackedAt: number | null;
  /** An acknowledged write: trims may come undone, and what was merely read. */
  readonly isWrite?: true;
  /** Of a trim. */
  readonly isTrim?: boolean;
};

/**
 * What a disk may hold after the replies to its user, cell by cell (4 KiB each). A cell's value is a
 * number that its bytes spell. Where the truth is not known (an error, a power loss) a set of
 * values is possible; reading one of them settles it.
 *
 * A client that goes leaves stale writes: without a reply, they may land at any time until a later
 * write to the cell has been acknowledged. From then on they must never be seen again.
 */
export class ModelDisk {
  readonly hasVolatileCache: boolean;
  /** Acknowledged writes are retained, and written again after a loss. */
  readonly retains: boolean;
  /** Acknowledged writes up to this one are not retained any more, unless a flush covers them. */
  #notRetainedUpTo = 0;
  /** Sequence number when the disk lost what was retained; a flush after it covers that. */
  #lostRetainedAt = 0;
  readonly #cells: Version[][];
  /** By cell: values that writes of clients that have gone may still bring. */
  readonly #ghosts = new Map<number, Set<number>>();
  /** Clients whose next flush has to fail, as acknowledged writes were lost; or may fail. */
  readonly #mustHear = new LossListeners();
  readonly #mayHear = new LossListeners();
  #sequence = 1;
  /** Acknowledgement number of the last write into the cache, and what flushes have covered. */
  #cachedUpTo = 0;
  #flushedUpTo = 0;
  /** Acknowledgement number when a client was last told of a loss. */
  #toldAt = 0;
  /** Answers get lost with the link up: any of them may have told of a power loss. */
  flushMayAlwaysFail = false;
  /** Times that acknowledged writes may have been lost. */
  losses = 0;
  /** The process has not heard of the newest one. */
  #isUnheard = false;

  constructor(options: {
    readonly cells: number;
    readonly hasVolatileCache: boolean;
    readonly retains?: boolean;
  }) {
    this.hasVolatileCache = options.hasVolatileCache;
    this.retains = options.retains ?? false;
    this.#cells = Array.from({ length: options.cells }, () => [
      { values: new Set([ZERO]), ackedAt: 0, isWrite: true },
    ]);
  }

  /** Number a flush has to remember when it is sent. */
  get mark(): number {
    return this.#sequence;
  }

  written(cell: number, value: number, how: { readonly stable: boolean }): void {
    const versions = this.#of(cell);
    // A stale write may be what the cache gives back when it loses this one.
    const ghosts = this.#takeGhosts(cell);
    if (ghosts.size > 0) versions.push({ values: ghosts, ackedAt: null });
    const ackedAt = this.#next();
    if (how.stable || !this.hasVolatileCache) versions.length = 0;
    else this.#cachedUpTo = ackedAt;
    versions.push({ values: new Set([value]), ackedAt, isWrite: true });
  }

  /** The write failed, or its end is not known. */
  perhapsWritten(cell: number, value: number): void {
    this.#of(cell).push({ values: new Set([value]), ackedAt: null });
    this.#cachedUpTo = this.#next();
  }

  /** The client is gone, and its write may land or not, now or later. */
  leftBehind(cell: number, value: number): void {
    const ghosts = this.#ghosts.get(cell) ?? new Set();
    this.#ghosts.set(cell, ghosts.add(value));
    this.#cachedUpTo = this.#next();
  }

  clientCame(client: ClientId): void {
    this.#mustHear.came(client);
    this.#mayHear.came(client);
  }

  /** The client is gone: what was lost cannot be reported to it. */
  clientGone(client: ClientId): void {
    this.#mustHear.gone(client);
    this.#mayHear.gone(client);
  }

  /** A client went with a flush under way, whose reply may have reported a loss. */
  flushLeftBehind(): void {
    this.#mustHear.perhapsTold();
  }

  /** Trimmed blocks read as before or as zeros. */
  trimmed(cell: number): void {
    const values = new Set(this.readable(cell)).add(ZERO);
    this.#takeGhosts(cell);
    const versions = this.#of(cell);
    const ackedAt = this.#next();
    if (!this.hasVolatileCache) versions.length = 0;
    versions.push({ values, ackedAt, isTrim: true });
    this.#cachedUpTo = ackedAt;
  }

  perhapsTrimmed(cell: number): void {
    this.perhapsWritten(cell, ZERO);
  }

  /** Every value a read may return. */
  readable(cell: number): Set<number> {
    const values = this.#known(cell);
    for (const value of this.#ghosts.get(cell) ?? []) values.add(value);
    return values;
  }

  /** The same without stale writes. */
  #known(cell: number): Set<number> {
    const versions = this.#of(cell);
    const values = new Set<number>();
    for (const version of versions.slice(this.#lastAcked(versions))) {
      for (const value of version.values) values.add(value);
    }
    return values;
  }

  /** Why a read of `value` is wrong, or null; it settles what was open. */
  read(cell: number, value: number): string | null {
    const possible = this.readable(cell);
    if (!possible.has(value)) {
      return `cell ${cell} reads ${value}, not ${[...possible].join(' or ')}`;
    }
    const known = this.#known(cell);
    if (known.size === 1 && known.has(value)) return null;
    // What has landed is no stale write any more.
    if (!known.has(value)) this.#ghosts.get(cell)?.delete(value);
    const versions = this.#of(cell);
    const at = this.#lastAcked(versions);
    // Seen is not flushed: an older stable value may still come back after a power loss.
    const settled = { values: new Set([value]), ackedAt: this.#next() };
    if (this.hasVolatileCache) versions.splice(at + 1, versions.length, settled);
    else versions.splice(0, versions.length, settled);
    return null;
  }

  /**
   * A flush that was sent at `mark`, after `losses` losses, was acknowledged. Returns why that is
   * wrong, or null.
   */
  flushed(mark: number, losses: number, by: ClientId): string | null {
    if (this.#mustHear.isWaiting(by)) {
      return 'a flush succeeded although acknowledged writes were lost';
    }
    if (losses === this.losses) this.#mayHear.told(by);
    this.#flushedUpTo = Math.max(this.#flushedUpTo, mark);
    for (const versions of this.#cells) {
      let covered = 0;
      for (const [index, version] of versions.entries()) {
        if (version.ackedAt !== null && version.ackedAt <= mark) covered = index;
      }
      versions.splice(0, covered);
    }
    return null;
  }

  /**
   * A flush that was sent at `mark`, after `losses` losses, failed with EIO: what was lost is
   * reported; nothing has been flushed by it. Returns why that is wrong, or null.
   */
  flushFailed(mark: number, losses: number, by: ClientId): string | null {
    const mayFail = this.#mayHear.isWaiting(by) || this.flushMayAlwaysFail;
    // Each one that is under way when a loss becomes known may have been done before it or after.
    const wasUnderWay = mark < this.#toldAt;
    if (!mayFail && !wasUnderWay && losses === this.losses) {
      return 'a flush failed although nothing can have been lost';
    }
    this.#mustHear.told(by);
    this.#mayHear.told(by);
    if (!wasUnderWay) this.#toldAt = this.#next();
    return null;
  }

  /** The target went down and came up again; with the power its cache went too. */
  restarted(facts: {
    readonly powerLoss: boolean;
    /** False: it is not reported, since the disk was removed. */
    readonly isReported?: boolean;
    /** Writes are under way, which may have reached the cache. */
    readonly isBusy: boolean;
    /** What a cell holds now; null where a request is under way. */
    readonly valueOf: (cell: number) => number | null;
  }): void {
    if (!this.hasVolatileCache) return;
    const isWhole = this.retains && this.#flushedUpTo >= this.#notRetainedUpTo;
    if (!isWhole) this.#mayBeLost(facts.isBusy);
    if (!facts.powerLoss) return;
    const isLost = this.#powerLost(facts.valueOf);
    if (!isLost || facts.isReported === false) return;
    // A flush reports writes that were dropped at a removal once: when they may be lost, or are lost.
    const isToldSinceRemoval = this.#toldAt > this.#notRetainedUpTo && this.#notRetainedUpTo > 0;
    if (isToldSinceRemoval) this.#mayHear.all();
    else this.#mustHear.all();
  }

  /** Acknowledged writes may be lost, so that a flush of each client may fail. */
  #mayBeLost(isBusy: boolean): void {
    const hasGhosts = [...this.#ghosts.values()].some((ghosts) => ghosts.size > 0);
    if (this.#cachedUpTo <= this.#flushedUpTo && !isBusy && !hasGhosts) return;
    this.#mayHear.all();
    this.losses += 1;
    this.#isUnheard = true;
  }

  /** The cache is gone. True if acknowledged writes are, which will not be written again. */
  #powerLost(valueAt: (cell: number) => number | null): boolean {
    if (this.retains) this.#lostRetainedAt = this.#next();
    let isSomeLost = false;
    for (const [cell, versions] of this.#cells.entries()) {
      if (this.#isRetained(versions)) this.#writtenAgain(versions);
      else if (this.#isLost(cell, valueAt(cell))) isSomeLost = true;
    }
    return isSomeLost;
  }

  /** What is not retained may be anything from now on. True if an acknowledged write is gone. */
  #isLost(cell: number, value: number | null): boolean {
    const isLost = value !== null && !this.#mayBeThere(cell, value);
    const versions = this.#of(cell);
    const values = valuesOf(versions);
    versions.splice(0, versions.length, { values, ackedAt: 0, isWrite: true });
    return isLost;
  }

  /** The last acknowledged write is retained: it came after what was retained was dropped. */
  #isRetained(versions: readonly Version[]): boolean {
    if (!this.retains) return false;
    if (this.#flushedUpTo >= this.#notRetainedUpTo) return true;
    const last = versions.findLast((version) => version.isWrite);
    return last !== undefined && (last.ackedAt ?? 0) > this.#notRetainedUpTo;
  }

  /**
   * What was acknowledged is written again. What came after it and was merely read, or not heard of,
   * is not; and a trimmed block may read as anything, since what is older is not written again.
   */
  #writtenAgain(versions: Version[]): void {
    const last = Math.max(
      0,
      versions.findLastIndex((version) => version.isWrite),
    );
    const isTrimmed = versions.slice(last).some((version) => version.isTrim);
    const from = isTrimmed ? 0 : last;
    const values = valuesOf(versions.slice(from));
    const ackedAt = versions[last]?.ackedAt ?? 0;
    versions.splice(from, versions.length, { values, ackedAt, isWrite: true });
  }

  /** A client whose flush failed meanwhile knows an earlier loss, and may have this one reported. */
  lossHeard({ isLast }: { readonly isLast: boolean }): void {
    if (this.#isUnheard) this.#mayHear.all();
    this.#isUnheard = !isLast;
  }

  /** It is not known whether the target went down: an answer that may have reported it was lost. */
  perhapsRestarted(): void {
    this.restarted({ powerLoss: false, isBusy: true, valueOf: () => null });
  }

  /**
   * The target has reported its power loss once, and the report was lost: the link, or the process,
   * ended with the answer on the wire. The next process cannot know of it, and may assume it.
   */
  attentionLost(): void {
    this.#mustHear.forget();
    this.perhapsRestarted();
  }

  /** Another process serves the disk now and does not know what the one before it has flushed. */
  takenOver(): void {
    // A loss that has not been reported to some client is reported to all again.
    if (this.#mustHear.isAnybodyWaiting || this.#mayHear.isAnybodyWaiting) this.#mayHear.all();
    this.#cachedUpTo = this.#next();
  }

  /**
   * Another process serves the disk to clients that have never seen it: none was promised more, so
   * what the clients before them had not flushed may be lost without a word to these.
   */
  startedAnew(): void {
    // The only process that could write again what the disk has lost is gone.
    const isLost = this.#lostRetainedAt > this.#flushedUpTo;
    for (const versions of this.#cells) {
      const unflushed = isLost ? [{ values: valuesOf(versions), ackedAt: 0 }] : versions;
      const unpromised = unflushed.map(({ values, ackedAt }) => ({ values, ackedAt }));
      versions.splice(0, versions.length, ...unpromised);
    }
    this.#mustHear.forget();
    this.#mayHear.all();
    this.#cachedUpTo = this.#next();
    this.#notRetainedUpTo = this.#next();
  }

  /**
   * The disk was removed: what was retained of it will not be written again. What the disk has lost
   * of it is lost for good, and has to be reported to the next client; the rest it may lose yet.
   */
  removed(facts: {
    readonly isBusy: boolean;
    readonly valueOf: (cell: number) => number | null;
  }): void {
    if (!this.hasVolatileCache || !this.retains) return;
    this.#notRetainedUpTo = this.#next();
    this.#mayBeLost(facts.isBusy);
    for (const cell of this.#cells.keys()) {
      const value = facts.valueOf(cell);
      if (value !== null && this.#mayBeThere(cell, value)) continue;
      if (this.#isLost(cell, value)) this.#mustHear.all();
    }
  }

  /** The cell may hold this without a write that was acknowledged being lost. */
  #mayBeThere(cell: number, value: number): boolean {
    if (this.#ghosts.get(cell)?.has(value)) return true;
    const versions = this.#of(cell);
    const from = versions.findLastIndex((version) => version.isWrite);
    return versions.slice(Math.max(0, from)).some((version) => version.values.has(value));
  }

  #takeGhosts(cell: number): Set<number> {
    const ghosts = this.#ghosts.get(cell) ?? new Set();
    this.#ghosts.delete(cell);
    return ghosts;
  }

  #lastAcked(versions: readonly Version[]): number {
    for (let index = versions.length - 1; index > 0; index -= 1) {
      if (versions[index]?.ackedAt !== null) return index;
    }
    return 0;
  }

  #next(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  #of(cell: number): Version[] {
    const versions = this.#cells[cell];
    if (versions === undefined) throw new Error(`no cell ${cell}`);
    return versions;
  }
}

function valuesOf(versions: readonly Version[]): Set<number> {
  return new Set(versions.flatMap(({ values }) => [...values]));
}
