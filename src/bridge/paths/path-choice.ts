import { NO_RANK, type Path } from './path.js';

export const PATH_POLICIES = ['least-queue', 'round-robin', 'failover'] as const;
export type PathPolicy = (typeof PATH_POLICIES)[number];

/** What of one turn goes over one path, although another one has less to do, in bytes. */
const BURST_BYTES = 128 << 10;

/**
 * Which path the next command takes: one of the best rank.
 * - `least-queue`: the one with the least under way. Commands of one turn go together, up to a
 *   bound: so each session sends, and the target answers, many at a time;
 * - `round-robin`: one after another;
 * - `failover`: the one that was used last, as long as none is better.
 */
export class PathChoice {
  policy: PathPolicy;
  /** The path that was chosen last. */
  last: Path | null = null;
  #lastTurn = -1;
  #burstBytes = 0;

  constructor(policy: PathPolicy) {
    this.policy = policy;
  }

  /** Null if none can be used; `turn`: see `PathsPortHooks`. */
  next(paths: readonly Path[], turn: number): Path | null {
    const { last } = this;
    this.#burstBytes = turn >= 0 && turn === this.#lastTurn ? BURST_BYTES : 0;
    this.#lastTurn = turn;
    let best: Path | null = null;
    let isBehindLast = last === null;
    let isBestBehindLast = false;
    for (const path of paths) {
      const { rank } = path;
      if (rank !== NO_RANK) {
        const isBetter =
          best === null ||
          rank < best.rank ||
          (rank === best.rank && this.#isBetter(path, best, isBehindLast && !isBestBehindLast));
        if (isBetter) {
          best = path;
          isBestBehindLast = isBehindLast;
        }
      }
      if (path === last) isBehindLast = true;
    }
    this.last = best ?? last;
    return best;
  }

  /** Of two of the same rank; `isNext`: it alone comes behind the path that was chosen last. */
  #isBetter(path: Path, best: Path, isNext: boolean): boolean {
    switch (this.policy) {
      case 'least-queue':
        return this.#load(path) < this.#load(best);
      case 'round-robin':
        return isNext;
      case 'failover':
        return path === this.last;
    }
  }

  #load(path: Path): number {
    return path === this.last ? path.loadBytes - this.#burstBytes : path.loadBytes;
  }
}
