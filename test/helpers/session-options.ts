import { configOf } from '../../src/config/config.js';
import type { SessionOptions } from '../../src/config/contract.js';

/** The product's defaults for a session, with `changes`. */
export function sessionOptions(changes: Partial<SessionOptions> = {}): SessionOptions {
  // What the process has, not a session: here it would make the process of the tests poll.
  const { busyPollMicroseconds, cpuAffinity, ...defaults } = configOf({}).values;
  return { ...defaults, initiatorName: 'iqn.2001-04.com.example:initiator', ...changes };
}
