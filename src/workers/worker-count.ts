import { availableParallelism } from 'node:os';
import type { ProcessSettings } from '../config/contract.js';

/** Workers of a daemon; 0: the main thread has all sessions, as it is best on one processor. */
export function workerCount(
  { workers = 0, cpuAffinity }: ProcessSettings,
  processors = availableParallelism(),
): number {
  if (workers !== 'auto') return workers;
  const usable = cpuAffinity?.length ?? processors;
  return usable === 1 ? 0 : usable;
}
