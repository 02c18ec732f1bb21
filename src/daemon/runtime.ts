import type { Clock } from '../base/clock.js';
import { SlabPool } from '../base/slab.js';
import type { Budget } from '../bridge/budget.js';
import { FlushList } from '../io/flush-list.js';
import { shareSlabs } from '../io/native.js';
import { realClock } from '../io/real-clock.js';

/** Slabs at most: 4 GiB is never reached, for every user of slabs has a smaller bound of its own. */
const SLABS_MAX = 4096;

/** What all sessions of one thread share. */
export type Runtime = {
  readonly pool: SlabPool;
  readonly flushes: FlushList;
  readonly clock: Clock;
};

/** What the NBD connections of one session share. */
export type StackResources = Runtime & { readonly budget: Budget };

let shared: Runtime | null = null;

/** The thread's runtime; the addon knows one set of slabs a thread. */
export function threadRuntime(): Runtime {
  if (shared === null) {
    const pool = new SlabPool({ slabsMax: SLABS_MAX });
    shareSlabs(pool);
    shared = { pool, flushes: new FlushList(), clock: realClock };
  }
  return shared;
}
