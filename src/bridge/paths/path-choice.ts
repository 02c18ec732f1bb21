import { NO_RANK, type Path } from './path.js';

export const PATH_POLICIES = ['least-queue', 'round-robin', 'failover'] as const;
export type PathPolicy = (typeof PATH_POLICIES)[number];

/**
 * Which path the next command takes: one of the best rank.
 * - `least-queue`: the one with the fewest commands under way;
 * - `round-robin`: one after another;
 * - `failover`: the one that was used last, as long as none is better.
 */
export class PathChoice {
  policy: PathPolicy;
  /** The path that was chosen last. */
  last: Path | null = null;

  constructor(policy: PathPolicy) {
    this.policy = policy;
  }

  /** Null if none can be used. */
  next(paths: readonly Path[]): Path | null {
    let best: Path | null = null;
    let bestRank = NO_RANK;
    let isBehindLast = this.last === null;
    let isBestBehindLast = false;
    for (const path of paths) {
      const { rank } = path;
      const isBetter =
        rank < bestRank ||
        (rank === bestRank &&
          best !== null &&
          this.#isBetter(path, best, { isBehindLast, isBestBehindLast }));
      if (rank !== NO_RANK && isBetter) {
        best = path;
        bestRank = rank;
        isBestBehindLast = isBehindLast;
      }
      if (path === this.last) isBehindLast = true;
    }
    this.last = best ?? this.last;
    return best;
  }

  /** Of two of the same rank. */
  #isBetter(
    path: Path,
    best: Path,
    { isBehindLast, isBestBehindLast }: { isBehindLast: boolean; isBestBehindLast: boolean },
  ): boolean {
    switch (this.policy) {
      case 'least-queue':
        return path.inFlight < best.inFlight;
      case 'round-robin':
        return isBehindLast && !isBestBehindLast;
      case 'failover':
        return path === this.last;
    }
  }
}
