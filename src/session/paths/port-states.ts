import type { Clock } from '../../base/clock.js';
import { type AccessState, isServing } from '../../bridge/paths/path.js';
import type { Alua } from '../../config/contract.js';
import type { TargetPortGroup } from '../../scsi/target-port-groups.js';
import type { PathCheck } from './path-check.js';
import type { UnitPath } from './unit-path.js';

/** Pause between two requests to make a group optimized: the target needs time for the first. */
const OPTIMIZE_PAUSE_MS = 5000;

type PortStatesOptions = {
  readonly clock: Clock;
  readonly alua: Alua;
  readonly check: PathCheck;
  /** What was read over `asked` about all groups; none: all ports of the unit are alike. */
  readonly groupsAre: (groups: readonly TargetPortGroup[], asked: UnitPath) => void;
  readonly accessIs: (
    each: UnitPath,
    what: { readonly access: AccessState; readonly reason: string },
  ) => void;
};

/** The states of the target port groups of a unit (ALUA): read, and set if that is wanted. */
export class PortStates {
  readonly #options: PortStatesOptions;
  /** Instant from which the target may be asked again to make a group optimized. */
  #mayOptimizeAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: PortStatesOptions) {
    this.#options = options;
  }

  /** Asks over the path for the states of all groups, if the unit has such. */
  async ask(each: UnitPath, isOver: () => boolean = () => false): Promise<void> {
    const { alua, check, groupsAre, accessIs } = this.#options;
    if (alua !== 'off' && (!each.path.isUsable || each.ownPort === null)) {
      each.ownPort = await check.ownPort(each.member);
    }
    if (isOver()) return;
    const { ownPort } = each;
    if (ownPort === null || (ownPort.group === null && ownPort.port === null)) {
      groupsAre([], each);
      return;
    }
    const told = await check.groups(each.member);
    if (isOver()) return;
    if (!('error' in told)) groupsAre(told.groups, each);
    else if (told.why === 'transition')
      accessIs(each, { access: 'transitioning', reason: told.error });
    // What cannot be read now is as it was, unless the unit does what it could not before.
    else if (told.why === 'unsupported' || !isServing(each.path.access)) groupsAre([], each);
  }

  /**
   * True if the target has taken the request to make the group of the path optimized. Only for a
   * disk none of whose paths can be used: two hosts that each want another group would never rest.
   */
  async optimize(each: UnitPath): Promise<boolean> {
    const { alua, clock, check } = this.#options;
    if (alua !== 'explicit' || clock.nowMs() < this.#mayOptimizeAtMs) return false;
    each.ownPort ??= await check.ownPort(each.member);
    if (each.ownPort?.canBeSet !== true || each.ownPort.group === null) return false;
    this.#mayOptimizeAtMs = clock.nowMs() + OPTIMIZE_PAUSE_MS;
    return await check.optimize(each.member, each.ownPort.group);
  }
}
