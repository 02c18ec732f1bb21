import { ZERO } from './cell-content.js';

/** One value a cell has had, oldest first. `ackedAt` null: nobody was told that it is there. */
type Version = {
  readonly values: ReadonlySet<number>;
  readonly ackedAt: number | null;
  /** A write that somebody was told is there: trims may come undone, and what was merely read. */
  readonly isWrite?: true;
};

/**
 * Clients with a flush to fail: all that are connected when there is something to tell, and those
 * that come while nobody has been told.
 */
class Listeners {
  readonly #connected = new Set<object>();
  readonly #waiting = new Set<object>();
  #isUnheard = false;

  has(client: object): boolean {
    return this.#waiting.has(client);
  }

  came(client: object): void {
    this.#connected.add(client);
    if (this.#isUnheard) this.#waiting.add(client);
  }

  gone(client: object): void {
    this.#connected.delete(client);
    this.#waiting.delete(client);
  }

  all(): void {
    this.#isUnheard = true;
    for (const client of this.#connected) this.#waiting.add(client);
  }

  told(client: object): void {
    this.#isUnheard = false;
    this.#waiting.delete(client);
  }
}

/**
 * What a disk may hold after what its user was told, cell by cell (4 KiB each). A cell's value is a
 * number that its bytes spell. Where the truth is not known (an error, a power loss) a set of
 * values is possible; reading one of them settles it.
 */
export class ModelDisk {
  readonly hasVolatileCache: boolean;
  readonly #cells: Version[][];
  #sequence = 1;
  /** Acknowledgement number of the last write into the cache, and what flushes have covered. */
  #cachedUpTo = 0;
  #flushedUpTo = 0;
  /** Who has to be told that acknowledged writes were lost. */
  readonly #mustHear = new Listeners();
  /** Who may be told, because they may have been lost. */
  readonly #mayHear = new Listeners();
  /** Answers get lost with the link up: any of them may have told of a power loss. */
  flushMayAlwaysFail = false;
  /** Times that acknowledged writes may have been lost. */
  losses = 0;

  constructor(options: { readonly cells: number; readonly hasVolatileCache: boolean }) {
    this.hasVolatileCache = options.hasVolatileCache;
    this.#cells = Array.from({ length: options.cells }, () => [
      { values: new Set([ZERO]), ackedAt: 0, isWrite: true },
    ]);
  }

  /** Number a flush has to remember when it is sent. */
  get mark(): number {
    return this.#sequence;
  }

  clientCame(client: object): void {
    this.#mustHear.came(client);
    this.#mayHear.came(client);
  }

  clientGone(client: object): void {
    this.#mustHear.gone(client);
    this.#mayHear.gone(client);
  }

  written(cell: number, value: number, options: { readonly stable: boolean }): void {
    const versions = this.#of(cell);
    const ackedAt = this.#next();
    if (options.stable || !this.hasVolatileCache) versions.length = 0;
    else this.#cachedUpTo = ackedAt;
    versions.push({ values: new Set([value]), ackedAt, isWrite: true });
  }

  /** The write failed, or nobody knows how it ended. */
  perhapsWritten(cell: number, value: number): void {
    this.#of(cell).push({ values: new Set([value]), ackedAt: null });
    this.#cachedUpTo = this.#next();
  }

  /** Trimmed blocks read as before or as zeros. */
  trimmed(cell: number): void {
    const values = new Set(this.readable(cell)).add(ZERO);
    const versions = this.#of(cell);
    const ackedAt = this.#next();
    if (!this.hasVolatileCache) versions.length = 0;
    versions.push({ values, ackedAt });
    this.#cachedUpTo = ackedAt;
  }

  perhapsTrimmed(cell: number): void {
    this.perhapsWritten(cell, ZERO);
  }

  /** Every value a read may return. */
  readable(cell: number): Set<number> {
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
    if (possible.size === 1) return null;
    const versions = this.#of(cell);
    const at = this.#lastAcked(versions);
    // Seen is not flushed: an older stable value may still come back after a power loss.
    const settled = { values: new Set([value]), ackedAt: this.#next() };
    if (this.hasVolatileCache) versions.splice(at + 1, versions.length, settled);
    else versions.splice(0, versions.length, settled);
    return null;
  }

  /**
   * A flush of `client` that was sent at `mark`, after `losses` losses, was acknowledged. Returns why that is
   * wrong, or null.
   */
  flushed(client: object, mark: number, losses: number): string | null {
    if (this.#mustHear.has(client)) {
      return 'a flush succeeded although acknowledged writes were lost';
    }
    if (losses === this.losses) this.#mayHear.told(client);
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
   * A flush failed with EIO: its client has been told of what was lost. `losses` is their number when it was
   * sent. Returns why that is wrong, or null.
   */
  flushFailed(client: object, losses: number): string | null {
    if (!this.#mayHear.has(client) && !this.flushMayAlwaysFail && losses === this.losses) {
      return 'a flush failed although nothing can have been lost';
    }
    this.#mustHear.told(client);
    this.#mayHear.told(client);
    this.#flushedUpTo = this.#next();
    return null;
  }

  /** The target went down and came up again; with the power its cache went too. */
  restarted(facts: {
    readonly powerLoss: boolean;
    /** Writes are under way, which may have reached the cache. */
    readonly isBusy: boolean;
    /** What a cell holds now; null where a request is under way. */
    readonly valueOf: (cell: number) => number | null;
  }): void {
    if (!this.hasVolatileCache) return;
    if (this.#cachedUpTo > this.#flushedUpTo || facts.isBusy) {
      this.#mayHear.all();
      this.losses += 1;
    }
    if (!facts.powerLoss) return;
    for (const [cell, versions] of this.#cells.entries()) {
      const value = facts.valueOf(cell);
      if (value !== null && !this.#sinceLastWrite(versions).has(value)) this.#mustHear.all();
      const values = new Set<number>();
      for (const version of versions) for (const each of version.values) values.add(each);
      versions.splice(0, versions.length, { values, ackedAt: 0, isWrite: true });
    }
  }

  /** Nobody knows whether the target went down: an answer that may have told it was lost. */
  perhapsRestarted(): void {
    this.restarted({ powerLoss: false, isBusy: true, valueOf: () => null });
  }

  /** What a cell may hold without a write that was acknowledged being lost. */
  #sinceLastWrite(versions: readonly Version[]): Set<number> {
    const from = versions.findLastIndex((version) => version.isWrite);
    const values = new Set<number>();
    for (const version of versions.slice(Math.max(0, from))) {
      for (const value of version.values) values.add(value);
    }
    return values;
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
