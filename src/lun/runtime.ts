import type { Clock } from '../base/clock.js';
import { SlabPool } from '../base/slab.js';
import type { Budget } from '../bridge/budget.js';
import { RetainedShare } from '../bridge/retained/retained-memory.js';
import { shareSlabs } from '../io/native.js';
import { realClock } from '../io/real-clock.js';
import { SendBatch } from '../io/send-batch.js';
import { tcpTransportOpener } from '../io/tcp-transport.js';
import type { TransportOpener } from '../io/transport.js';

/**
 * Slabs at most. 4 GiB are never reached: each user of slabs has a smaller bound of its own in
 * bytes, and when many hold little of many slabs, the limits end that.
 */
const SLABS_MAX = 4096;
const SLAB_LIMITS = { tight: SLABS_MAX / 4, scarce: SLABS_MAX / 2 } as const;

/** What all sessions of one thread share. */
export type Runtime = {
  readonly pool: SlabPool;
  readonly flushes: SendBatch;
  readonly clock: Clock;
  /** The way to targets. */
  readonly openLink: TransportOpener;
  readonly retainedShare: RetainedShare;
};

/** What the NBD connections of one session share. */
export type SessionResources = Runtime & { readonly budget: Budget };

let shared: Runtime | null = null;

/** The thread's runtime; the addon knows one set of slabs a thread. */
export function threadRuntime(): Runtime {
  if (shared === null) {
    const pool = new SlabPool({ slabsMax: SLABS_MAX, limits: SLAB_LIMITS });
    shareSlabs(pool);
    const flushes = new SendBatch();
    const openLink = tcpTransportOpener(pool, flushes);
    const retainedShare = new RetainedShare();
    shared = { pool, flushes, clock: realClock, openLink, retainedShare };
  }
  return shared;
}
