import { performance } from 'node:perf_hooks';
import type { Clock } from '../base/clock.js';

/** The machine's monotonic clock. */
export const realClock: Clock = {
  nowMs: () => performance.now(),
  at(atMs, action) {
    const timer = setTimeout(action, Math.max(0, Math.ceil(atMs - performance.now())));
    return () => clearTimeout(timer);
  },
};
