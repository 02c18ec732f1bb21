import type { Clock } from '../../base/clock.js';
import { ACCESS_OF, type AccessState, isServing } from '../../bridge/paths/path.js';
import type { Alua } from '../../config/contract.js';
import type { Readiness } from '../../lun/disk-probe.js';
import { groupOfPort } from '../../lun/port-groups.js';
import { isOfPort } from '../../scsi/sense-table.js';
import type { TargetPortGroup } from '../../scsi/target-port-groups.js';
import type { PathCheck } from './path-check.js';
import type { UnitPath } from './unit-path.js';

/** Pause between two requests to make a group optimized: the target needs time for the first. */
const OPTIMIZE_PAUSE_MS = 5000;

/** What is known of the access over a path. */
export type PathAccess = {
  readonly access: AccessState;
  readonly preferred?: boolean;
  readonly reason: string;
};

type PortStatesOptions = {
  readonly clock: Clock;
  readonly alua: Alua;
  readonly check: PathCheck;
  readonly paths: () => readonly UnitPath[];
  readonly accessIs: (each: UnitPath, what: PathAccess) => void;
  /** The path may serve again, once the disk has been found over it. */
  readonly tryAgain: (each: UnitPath) => void;
};

/** The states of the target port groups of a unit (ALUA): read, and set if that is wanted. */
export class PortStates {
  readonly #options: PortStatesOptions;
  /** Instant from which the target may be asked again to make a group optimized. */
  #mayOptimizeAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: PortStatesOptions) {
    this.#options = options;
  }

  /**
   * Asks over the path for the states of all groups, if the unit has such. `refusal`: the unit has
   * just refused a command over it, because of its port.
   */
  async ask(
    each: UnitPath,
    isOver: () => boolean = () => false,
    refusal: PathAccess | null = null,
  ): Promise<void> {
    const { alua, check, accessIs } = this.#options;
    const groupsAre = (groups: readonly TargetPortGroup[]) =>
      this.#groupsAre(groups, each, refusal);
    if (alua !== 'off' && (!each.path.isUsable || each.ownPort === null)) {
      each.ownPort = (await check.ownPort(each.member)) ?? each.ownPort;
    }
    if (isOver()) return;
    const { ownPort } = each;
    if (ownPort === null || (ownPort.group === null && ownPort.port === null)) {
      groupsAre([]);
      return;
    }
    const told = await check.groups(each.member);
    if (isOver()) return;
    if (!('error' in told)) groupsAre(told.groups);
    else if (refusal !== null) {
      // Over another path its group may have been reported in a state without service.
      if (isServing(each.reported ?? 'unknown')) accessIs(each, refusal);
    } else if (told.why === 'transition')
      accessIs(each, { access: 'transitioning', reason: told.error });
    // What cannot be read now is as it was, unless the unit does what it could not before.
    else if (told.why === 'unsupported' || !isServing(each.path.access)) groupsAre([]);
  }

  /** The unit has refused a command over the path. What its group reports says more of a port. */
  async refused(each: UnitPath, ready: Readiness, isOver: () => boolean): Promise<void> {
    const { attention, words: reason } = ready;
    const access = attention === null ? undefined : ACCESS_OF.get(attention);
    const refusal = { access: access ?? 'unavailable', reason };
    if (isOfPort(attention)) await this.ask(each, isOver, refusal);
    else this.#options.accessIs(each, refusal);
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

  /**
   * What has been read of the states of the groups over `asked`, for all paths. A unit that does
   * not tell has one state for all its ports, and that one is ready.
   */
  #groupsAre(
    groups: readonly TargetPortGroup[],
    asked: UnitPath,
    refusal: PathAccess | null,
  ): void {
    const { paths, accessIs, tryAgain } = this.#options;
    for (const each of paths()) {
      const group = each.ownPort === null ? undefined : groupOfPort(each.ownPort, groups);
      if (groups.length > 0) each.group = group?.group ?? null;
      const isAsked = each === asked;
      if (each.path.state === 'down' || (group === undefined && !isAsked)) continue;
      const access = accessByReport(each, group, { isAsked, refusal });
      each.reported = group?.state ?? null;
      if (access === null) continue;
      if (access !== 'untried') accessIs(each, access);
      if (!isAsked && !each.path.isUsable) tryAgain(each);
    }
  }
}

/**
 * The access over a path by what has been read over `asked` of its group (undefined: of none).
 * `untried`: only a command over the path itself shows whether its port serves again, as another
 * port may know of that later or earlier. Null: nothing has changed.
 */
function accessByReport(
  { path, reported }: UnitPath,
  group: TargetPortGroup | undefined,
  how: { readonly isAsked: boolean; readonly refusal: PathAccess | null },
): PathAccess | 'untried' | null {
  const { state: access = 'unknown', preferred = false } = group ?? {};
  const reason = group === undefined ? 'the disk is ready' : `target port group ${group.group}`;
  if (isServing(access)) {
    if (how.isAsked && how.refusal !== null) {
      return how.refusal.access === path.access ? null : how.refusal;
    }
    if (!how.isAsked && !isServing(path.access)) return reported === access ? null : 'untried';
  }
  if (path.access === access && path.isPreferred === preferred) return null;
  return { access, preferred, reason };
}
