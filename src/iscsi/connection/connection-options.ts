import type { SlabPool } from '../../base/slab.js';
import type { ScsiCommand } from '../../scsi/command.js';
import type { LoginMachine } from '../login/login.js';
import type { QuirkLog } from '../quirks/quirks.js';

/** What a session gives to each of its connections. */
export type ConnectionOptions = {
  readonly pool: SlabPool;
  readonly login: LoginMachine;
  readonly firstCmdSN: number;
  readonly cid: number;
  /** Where commands go that have an outcome; the session's, drained by its driver. */
  readonly completed: ScsiCommand[];
  /** Where it is noted what the target does against the RFC and the connection lives with. */
  readonly quirks: QuirkLog;
};
