import { Budget } from '../bridge/budget.js';
import type { SessionOptions } from '../config/contract.js';
import type { Runtime, SessionResources } from '../lun/runtime.js';

/** Requests all clients of a session may have under way or held. */
const REQUESTS_MAX = 8192;

/** What the disks of one session share. */
export function resourcesOf(
  runtime: Runtime,
  { heldBytesMax }: Pick<SessionOptions, 'heldBytesMax'>,
): SessionResources {
  const budget = new Budget({
    requestsMax: REQUESTS_MAX,
    bytesMax: heldBytesMax,
    memory: runtime.pool,
  });
  return { ...runtime, budget };
}
