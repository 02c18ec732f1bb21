import { type Clock, pause } from '../../base/clock.js';
import { identityMismatch, identityNotRead } from '../../bridge/disk-identity.js';
import {
  clearAttentions,
  type Readiness,
  readFacts,
  type ScsiExecutor,
} from '../../lun/disk-probe.js';
import { ownPortGroup, readPortGroups } from '../../lun/port-groups.js';
import { completedFacts } from '../../scsi/completed-facts.js';
import type { DiskFacts } from '../../scsi/disk-facts.js';
import type { TargetPortGroup } from '../../scsi/target-port-groups.js';
import type { PathMember } from './path-member.js';

/** What a check met has gone to `SessionClient.onAttention` already. */
const REPORTED_ELSEWHERE = () => undefined;

/** The questions by which it is found out whether a unit can be used over a session. */
export class PathCheck {
  readonly #lun: number;
  readonly #clock: Clock;
  readonly #allowUnidentified: boolean;

  constructor(options: {
    readonly lun: number;
    readonly clock: Clock;
    readonly allowUnidentified: boolean;
  }) {
    this.#lun = options.lun;
    this.#clock = options.clock;
    this.#allowUnidentified = options.allowUnidentified;
  }

  isReady(member: PathMember): Promise<Readiness> {
    return clearAttentions(this.#askerOf(member), this.#lun, REPORTED_ELSEWHERE);
  }

  /** All groups with their states; null: the unit has one state for all its ports. */
  async groups(member: PathMember): Promise<readonly TargetPortGroup[] | null> {
    const told = await readPortGroups(this.#askerOf(member), this.#lun);
    return 'error' in told ? null : told.groups;
  }

  ownGroup(member: PathMember): Promise<number | null> {
    return ownPortGroup(this.#askerOf(member), this.#lun);
  }

  /** Why the disk is not taken for `known`; null if it is the same. */
  async whyNotSame(member: PathMember, known: DiskFacts): Promise<string | null> {
    const found = await readFacts(this.#askerOf(member), this.#lun, REPORTED_ELSEWHERE);
    const occasion = { mayBeExchanged: true, allowUnidentified: this.#allowUnidentified };
    return (
      identityNotRead(known, found, occasion) ??
      identityMismatch(known, completedFacts(found, known), occasion)
    );
  }

  #askerOf(member: PathMember): ScsiExecutor {
    return {
      execute: (request) => member.execute(request),
      pause: (ms) => pause(this.#clock, ms),
    };
  }
}
