import type { LunField, ScsiCommand, ScsiPort } from '../../scsi/command.js';
import type { Attention } from '../../scsi/sense-table.js';
import { ACCESS_STATES } from '../../scsi/target-port-groups.js';
import { type PathEvent, type PathState, pathMove } from './path-state.js';

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
/**
 * What a unit reports of one of its ports, and the state of access that this is: over another port
 * the same command may be done.
 */
export const ACCESS_OF: ReadonlyMap<Attention, AccessState> = new Map([
  ['accessTransition', 'transitioning'],
  ['portStandby', 'standby'],
  ['portUnavailable', 'unavailable'],
  ['becomingReady', 'unavailable'],
  ['lunGone', 'unavailable'],
  ['notReady', 'offline'],
]);
/** States of a path for people. */
export const PATH_WORDS = [
  ...(['down', 'checking', 'ready'] as const),
  ...ACCESS_STATES.filter((access) => access !== 'unknown'),
] as const;
export type PathWords = (typeof PATH_WORDS)[number];

/** Of a path that cannot be used. */
export const NO_RANK = Number.POSITIVE_INFINITY;
const SUSPECT_RANK = 100;
/** What a command costs a path besides its data. */
const COMMAND_LOAD_BYTES = 4096;

/** Commands for data are taken over a port in this state. */
export function isServing(access: AccessState): boolean {
  return RANKS[access] !== undefined;
}

/**
 * One way to a logical unit: a session (an I_T nexus), and the LUN by which the unit is known over
 * it. What is true of it is found out by the owner of the session.
 */
export class Path {
  readonly port: ScsiPort;
  readonly lun: LunField;
  /** Its number among the paths of the unit; none of another path, whatever becomes of this one. */
  id = -1;
  /** Portal as people know it. */
  readonly name: string;
  /** The nexus of its session as last logged in, see `PathMember.nexus`; null: none is known. */
  nexus: string | null = null;
  /** Commands under way over it, and those of them that change the disk. */
  inFlight = 0;
  writesInFlight = 0;
  /** What they move, and something for each of them. */
  loadBytes = 0;
  /**
   * Which of several paths is better: the lower one. A suspect path is worse than any other that
   * can be used; a preferred group is better than others in the same state.
   */
  rank = NO_RANK;
  /**
   * Times that other paths have told of a power loss. A write that was sent before it and is
   * answered after it may have been done before, and be gone: over this path the answer counts as
   * lost. (Over the path that has told of it, a write that is done later is done after it.)
   */
  era = 0;
  /** Times that what was known of the disk over it has become worthless. */
  doubts = 0;
  #state: PathState = 'down';
  #access: AccessState = 'unknown';
  #isPreferred = false;
  #isSuspect = false;
  #isSpare: boolean;

  constructor(options: {
    readonly port: ScsiPort;
    readonly lun: LunField;
    readonly name: string;
    readonly isSpare?: boolean;
  }) {
    this.port = options.port;
    this.lun = options.lun;
    this.name = options.name;
    this.#isSpare = options.isSpare === true;
  }

  get state(): PathState {
    return this.#state;
  }

  get access(): AccessState {
    return this.#access;
  }

  /** PREF of its target port group. */
  get isPreferred(): boolean {
    return this.#isPreferred;
  }

  /** It has failed too often in a short time to be trusted at once. */
  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  set isSuspect(isSuspect: boolean) {
    this.#isSuspect = isSuspect;
    this.#rerank();
  }

  /** It is worse than any other with the same access: it was not requested by name. */
  get isSpare(): boolean {
    return this.#isSpare;
  }

  set isSpare(isSpare: boolean) {
    this.#isSpare = isSpare;
    this.#rerank();
  }

  /** Requests may go over it. */
  get isUsable(): boolean {
    return this.rank !== NO_RANK;
  }

  /** Its state as people know it: that of its port if the target reports one. */
  get words(): PathWords {
    if (this.#state === 'down') return 'down';
    if (this.#state !== 'ready' && isServing(this.#access)) return 'checking';
    return this.#access === 'unknown' ? 'ready' : this.#access;
  }

  /** The command is under way over it. */
  began(command: ScsiCommand): void {
    this.inFlight += 1;
    this.loadBytes += COMMAND_LOAD_BYTES + command.transferLength;
    if (command.direction === 'write') this.writesInFlight += 1;
  }

  ended(command: ScsiCommand): void {
    this.inFlight -= 1;
    this.loadBytes -= COMMAND_LOAD_BYTES + command.transferLength;
    if (command.direction === 'write') this.writesInFlight -= 1;
  }

  happened(event: PathEvent): void {
    this.#state = pathMove(this.#state, event);
    if (event !== 'sameDiskFound') this.doubts += 1;
    this.#rerank();
  }

  /** The state of its target port group; one that takes no commands puts all else in doubt. */
  accessIs(access: AccessState, isPreferred = false): void {
    this.#access = access;
    this.#isPreferred = isPreferred;
    if (isServing(access)) this.#rerank();
    else this.happened('doubted');
  }

  #rerank(): void {
    const rank = this.#state === 'ready' ? RANKS[this.#access] : undefined;
    this.rank =
      rank === undefined
        ? NO_RANK
        : (this.#isSuspect ? SUSPECT_RANK : 0) +
          4 * rank +
          (this.#isPreferred ? 0 : 2) +
          (this.#isSpare ? 1 : 0);
  }
}
