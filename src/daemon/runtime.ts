import type { Clock } from '../base/clock.js';
import { SlabPool } from '../base/slab.js';
import type { Budget } from '../bridge/budget.js';
import { FlushList } from '../io/flush-list.js';
import type { LinkOpener } from '../io/link.js';
import { shareSlabs } from '../io/native.js';
import { realClock } from '../io/real-clock.js';
import { tcpLinkOpener } from '../io/tcp-link.js';

/** Slabs at most: 4 GiB is never reached, for each user of slabs has a smaller bound of its own. */
const SLABS_MAX = 4096;

/** What all sessions of one thread share. */
export type Runtime = {
  readonly pool: SlabPool;
  readonly flushes: FlushList;
  readonly clock: Clock;
  /** The way to targets. */
  readonly openLink: LinkOpener;
};

/** What the NBD connections of one session share. */
export type StackResources = Runtime & { readonly budget: Budget };

let shared: Runtime | null = null;

/** The thread's runtime; the addon knows one set of slabs a thread. */
export function threadRuntime(): Runtime {
  if (shared === null) {
    const pool = new SlabPool({ slabsMax: SLABS_MAX });
    shareSlabs(pool);
    const flushes = new FlushList();
    shared = { pool, flushes, clock: realClock, openLink: tcpLinkOpener(pool, flushes) };
  }
  return shared;
}
