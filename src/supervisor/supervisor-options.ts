import type { Logger } from '../config/log.js';
import type { RetainedStore } from '../lun/retained-store.js';
import type { Neighbours } from './neighbours.js';
import type { DaemonEnvironment } from './resolved-login.js';
import type { ExportPlan } from './session-exports.js';

export type SupervisorOptions = {
  readonly surroundings: DaemonEnvironment;
  readonly exportPlan: ExportPlan;
  /** First logins under way at a time when the daemon starts. */
  readonly loginsMax: number;
  readonly bootId: string;
  /** What its sessions retain over the end of this process; absent: nothing. */
  readonly retained?: RetainedStore;
  readonly log: Logger;
  /** The daemon has sessions in other threads, too. */
  readonly neighbours?: Neighbours;
};
