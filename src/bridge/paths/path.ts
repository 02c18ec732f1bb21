import type { LunField, ScsiPort } from '../../scsi/command.js';
import type { ACCESS_STATES } from '../../scsi/target-port-groups.js';

export type AccessState = (typeof ACCESS_STATES)[number];

/**
 * Access states over which commands for data are taken, best first (SPC-4, asymmetric logical unit
 * access). `unknown`: the target has one state for all its ports, or does not report any.
 */
const RANKS: Readonly<Partial<Record<AccessState, number>>> = {
  optimized: 0,
  unknown: 0,
  blockDependent: 1,
  nonOptimized: 2,
};
/** Of a path that cannot be used. */
export const NO_RANK = Number.POSITIVE_INFINITY;

/** Commands for data are taken over a port in this state. */
export function isServing(access: AccessState): boolean {
  return RANKS[access] !== undefined;
}

/**
 * One way to a logical unit: a session (an I_T nexus), and the LUN by which the unit is known over
 * it. What is true of it is found out by whoever owns the session.
 */
export class Path {
  readonly port: ScsiPort;
  readonly lun: LunField;
  /** Its number among the paths of the unit; none of another path, whatever becomes of this one. */
  id = -1;
  /** Portal as people know it. */
  readonly name: string;
  /** The session is logged in, and the unit has been found to be the same disk over it. */
  isUp = false;
  access: AccessState = 'unknown';
  /** PREF of its target port group. */
  isPreferred = false;
  /** It has failed too often in a short time to be trusted at once. */
  isSuspect = false;
  /** Commands under way over it, and those of them that change the disk. */
  inFlight = 0;
  writesInFlight = 0;

  constructor(options: { readonly port: ScsiPort; readonly lun: LunField; readonly name: string }) {
    this.port = options.port;
    this.lun = options.lun;
    this.name = options.name;
  }

  /**
   * Which of several paths is better: the lower one. A suspect path is worse than any other that
   * can be used; a preferred group is better than others in the same state.
   */
  get rank(): number {
    const rank = RANKS[this.access];
    if (!this.isUp || rank === undefined) return NO_RANK;
    return (this.isSuspect ? 100 : 0) + 2 * rank + (this.isPreferred ? 0 : 1);
  }

  get isUsable(): boolean {
    return this.rank !== NO_RANK;
  }
}
