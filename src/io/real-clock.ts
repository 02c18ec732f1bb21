import { performance } from 'node:perf_hooks';
import type { Clock } from '../base/clock.js';
import { native } from './native.js';

const receipt = new Float64Array(1);
/** From the addon's zero to that of this thread's `performance`. */
const offsetMs = performance.now() - native.useReceiptClock(receipt);

/** The machine's monotonic clock. */
export const realClock: Clock = {
  nowMs: () => performance.now(),
  receiptMs: () => {
    const atMs = receipt[0] ?? 0;
    return atMs > 0 ? atMs + offsetMs : performance.now();
  },
  at(atMs, action) {
    const timer = setTimeout(action, Math.max(0, Math.ceil(atMs - performance.now())));
    return () => clearTimeout(timer);
  },
};
