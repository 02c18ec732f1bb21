import { type Clock, pause } from '../../base/clock.js';
import { LinkError } from '../../base/errors.js';
import {
  identityMismatch,
  identityNotRead,
  otherTargetMismatch,
} from '../../bridge/disk-identity.js';
import {
  CDB_BYTES,
  clearAttentions,
  type Readiness,
  readFacts,
  type ScsiExecutor,
  testUnitReady,
} from '../../lun/disk-probe.js';
import {
  type OwnPort,
  type PortGroupsAnswer,
  readOwnPort,
  readPortGroups,
} from '../../lun/port-groups.js';
import { completedFacts } from '../../scsi/completed-facts.js';
import type { DiskFacts } from '../../scsi/disk-facts.js';
import { ScsiStatus } from '../../scsi/status.js';
import {
  optimizedGroupParameters,
  writeSetTargetPortGroupsCdb,
} from '../../scsi/target-port-groups.js';
import type { PathMember } from './path-member.js';
import { TRANSITION_SECONDS } from './transitions.js';
import type { UnitPath } from './unit-path.js';

/** What a check met has gone to `SessionClient.onAttention` already. */
const REPORTED_ELSEWHERE = () => undefined;

/** The questions by which it is found out whether a unit can be used over a session. */
export class PathCheck {
  readonly #lun: number;
  readonly #clock: Clock;
  readonly #allowUnidentified: boolean;
  /** The target has not refused the extended header of REPORT TARGET PORT GROUPS. */
  #isExtended = true;
  #transitionSeconds: number | null = null;

  constructor(options: {
    readonly lun: number;
    readonly clock: Clock;
    readonly allowUnidentified: boolean;
  }) {
    this.#lun = options.lun;
    this.#clock = options.clock;
    this.#allowUnidentified = options.allowUnidentified;
  }

  /** How long a transition of its ports may take. */
  get transitionSeconds(): number {
    return this.#transitionSeconds ?? TRANSITION_SECONDS;
  }

  isReady(member: PathMember): Promise<Readiness> {
    return clearAttentions(this.#askerOf(member), this.#lun, REPORTED_ELSEWHERE);
  }

  /** The unit has nothing to report over this path but, perhaps, a reset of ours. */
  async isQuiet({ member, ownResets }: UnitPath): Promise<boolean> {
    const isReady = async () => {
      const { status } = await member.execute(testUnitReady(this.#lun));
      return status === ScsiStatus.good;
    };
    const mayReport = ownResets.size > 0;
    try {
      return (await isReady()) || (mayReport && (await isReady()));
    } catch (error) {
      if (error instanceof LinkError) return false;
      throw error;
    }
  }

  /** All groups with their states. */
  async groups(member: PathMember): Promise<PortGroupsAnswer> {
    const told = await readPortGroups(this.#askerOf(member), this.#lun, this.#isExtended);
    if ('error' in told) return told;
    this.#isExtended = told.isExtended;
    this.#transitionSeconds = told.transitionSeconds ?? this.#transitionSeconds;
    return told;
  }

  ownPort(member: PathMember): Promise<OwnPort | null> {
    return readOwnPort(this.#askerOf(member), this.#lun);
  }

  /** Asks for the group to become optimized; true if the target has taken the command. */
  async optimize(member: PathMember, group: number): Promise<boolean> {
    const parameters = optimizedGroupParameters(group);
    const cdb = Buffer.alloc(CDB_BYTES);
    writeSetTargetPortGroupsCdb(cdb, parameters.length);
    const { status } = await member.client.order({ lun: this.#lun, cdb, parameters });
    return status === ScsiStatus.good;
  }

  /** Why the disk is not taken for `known`; null if it is the same. */
  async whyNotSame(member: PathMember, known: DiskFacts): Promise<string | null> {
    const found = await readFacts(this.#askerOf(member), this.#lun, REPORTED_ELSEWHERE);
    const different = member.other === null ? null : otherTargetMismatch(known, found);
    if (different !== null) return `it is not proven to be the same disk: ${different}`;
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
