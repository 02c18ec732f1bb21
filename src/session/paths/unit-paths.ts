import { type Clock, pause } from '../../base/clock.js';
import { productError } from '../../base/errors.js';
import { identityMismatch, identityNotRead } from '../../bridge/disk-identity.js';
import type { LogicalUnit } from '../../bridge/logical-unit.js';
import { type AccessState, isServing, Path } from '../../bridge/paths/path.js';
import { PathChoice, type PathPolicy } from '../../bridge/paths/path-choice.js';
import { PathsPort } from '../../bridge/paths/paths-port.js';
import {
  clearAttentions,
  readFacts,
  type ScsiExecutor,
  testUnitReady,
} from '../../lun/disk-probe.js';
import { ownPortGroup, readPortGroups } from '../../lun/port-groups.js';
import type { Attention } from '../../scsi/sense-table.js';
import type { TargetPortGroup } from '../../scsi/target-port-groups.js';
import type { PathMember } from './path-member.js';

export type PathStateChange = {
  readonly member: PathMember;
  readonly from: string;
  readonly to: string;
  readonly reason: string;
};

type UnitPathsOptions = {
  readonly lun: number;
  readonly clock: Clock;
  readonly policy: PathPolicy;
  /** Pause between two checks of a path that is not used, and of one that cannot be. */
  readonly checkIntervalMs: () => number;
  /** The unit, once there is one. */
  readonly unit: () => LogicalUnit;
  /** The first path can be used again: the disk has to be probed, and serves after that. */
  readonly usable: () => void;
  /** No path can be used any more; called before commands come back, and `settled` after. */
  readonly unusable: (reason: string) => void;
  readonly settled: () => void;
  readonly stateChanged: (change: PathStateChange) => void;
  readonly switched: (from: PathMember | null, to: PathMember, reason: string) => void;
  readonly warn: (message: string) => void;
};

/** States of the access that the unit itself reports to a command. */
const ACCESS_OF: ReadonlyMap<Attention, AccessState> = new Map([
  ['portStandby', 'standby'],
  ['becomingReady', 'transitioning'],
  ['lunGone', 'unavailable'],
  ['notReady', 'offline'],
]);
/** Those after which the groups of ports may have other states. */
const ACCESS_CHANGES: ReadonlySet<Attention> = new Set<Attention>([
  'accessStateChanged',
  'inquiryChanged',
  'lunsChanged',
]);
const FOUND = 'the disk was found over it';
/** Pause between two attempts to prove that old tasks are over. */
const FENCE_RETRY_MS = 1000;

/** The paths of one logical unit: which can be used, and how that is found out. */
export class UnitPaths {
  readonly port: PathsPort;
  readonly #options: UnitPathsOptions;
  readonly #paths = new Map<PathMember, Path>();
  readonly #members = new Map<Path, PathMember>();
  /** Target port group of the port of each session; null: the unit does not tell. */
  readonly #groups = new Map<PathMember, number | null>();
  /** Members whose path is being checked, or will be. */
  readonly #checks = new Map<PathMember, () => void>();
  #isClosed = false;

  constructor(options: UnitPathsOptions) {
    this.#options = options;
    this.port = new PathsPort(new PathChoice(options.policy), {
      pathAttention: (path, attention) => this.#attention(path, attention),
      isHeld: () => options.unit().queue.mode !== 'open',
      fenceNeeded: (path) => void this.#prove(path),
      switched: (from, to) => this.#switched(from, to),
    });
  }

  get isUsable(): boolean {
    return this.port.isUsable;
  }

  get paths(): readonly { readonly member: PathMember; readonly path: Path }[] {
    return [...this.#paths].map(([member, path]) => ({ member, path }));
  }

  add(member: PathMember): void {
    const { lun } = this.#options;
    const path = new Path({
      port: member.client.initiator,
      lun: member.client.lunFields.fieldOf(lun),
      name: member.name,
    });
    this.#paths.set(member, path);
    this.#members.set(path, member);
    this.port.add(path);
  }

  /** The disk was found over this session: its path can be used at once, and it serves already. */
  admit(member: PathMember): void {
    const path = this.#paths.get(member);
    if (path === undefined || !member.isLoggedIn) return;
    path.isUp = true;
    this.#told(member, path, { from: 'down', reason: FOUND });
    this.#readAccess(this.#askerOf(member), member).catch(productError);
  }

  /** Writes wait until what a process before this one has left at the target has ended. */
  fenceFormer(): void {
    const [first] = this.#members.keys();
    if (first === undefined) return;
    const { port, lun } = first;
    this.port.fence(new Path({ port, lun, name: 'the process before' }));
  }

  /** The login has ended what was under way over the session before. */
  memberBack(member: PathMember): void {
    const path = this.#paths.get(member);
    if (path !== undefined) this.port.provenOver(path);
    this.check(member);
  }

  memberLost(member: PathMember, reason: string): void {
    this.#stopCheck(member);
    const path = this.#paths.get(member);
    if (path?.isUp !== true) return;
    path.isUp = false;
    this.port.pathDown(path);
    this.#told(member, path, { from: path.access, reason });
    if (!this.isUsable) this.#isUnusable(member, reason);
  }

  #isUnusable(member: PathMember, reason: string): void {
    this.#options.unusable(reason);
    member.client.whenSettled(() => this.#options.settled());
  }

  /** Finds out, from now on until that is known, whether the path of the session can be used. */
  check(member: PathMember): void {
    this.#stopCheck(member);
    if (this.#isClosed) return;
    const stop = new AbortController();
    this.#checks.set(member, () => stop.abort());
    void this.#checking(member, stop.signal);
  }

  /** Has the unit say over a session that is there what it has to say. */
  ask(member: PathMember): void {
    member.execute(testUnitReady(this.#options.lun)).catch(productError);
  }

  close(): void {
    this.#isClosed = true;
    for (const member of this.#checks.keys()) this.#stopCheck(member);
  }

  #stopCheck(member: PathMember): void {
    this.#checks.get(member)?.();
    this.#checks.delete(member);
  }

  async #checking(member: PathMember, signal: AbortSignal): Promise<void> {
    const { clock, checkIntervalMs } = this.#options;
    let said = '';
    while (!signal.aborted && member.isLoggedIn) {
      const why = await this.#whyNot(member).catch((error: unknown) => productError(error).message);
      if (signal.aborted || !member.isLoggedIn) return;
      const path = this.#paths.get(member);
      if (why === null && path !== undefined) this.#isUp(member, path);
      else if (why !== null && why !== said) {
        said = why;
        this.#options.warn(`the path over ${member.name} cannot be used: ${why}`);
      }
      await pause(clock, checkIntervalMs());
    }
  }

  /** Why the unit cannot be used over the session; null if it can. */
  async #whyNot(member: PathMember): Promise<string | null> {
    const { lun, unit } = this.#options;
    const asker = this.#askerOf(member);
    const path = this.#paths.get(member);
    const ready = await clearAttentions(asker, lun, () => undefined);
    if (ready.action !== 'success') {
      const access = ready.attention === null ? undefined : ACCESS_OF.get(ready.attention);
      if (path !== undefined && access !== undefined) path.access = access;
      return ready.words;
    }
    if (path?.isUp === true && path.isUsable) return null;
    const isTold = await this.#readAccess(asker, member);
    // What the unit has said of its port before, it does not say any more.
    if (!isTold && path !== undefined) path.access = 'unknown';
    if (path !== undefined && !isServing(path.access)) return `its port is ${path.access}`;
    const known = unit().facts;
    const found = await readFacts(asker, lun, () => undefined);
    const occasion = { mayBeExchanged: true, allowUnidentified: false };
    return identityNotRead(known, found, occasion) ?? identityMismatch(known, found, occasion);
  }

  /**
   * The state of each path, by the groups of their ports; one answer has all groups. True if it has
   * that of `member`.
   */
  async #readAccess(asker: ScsiExecutor, member?: PathMember): Promise<boolean> {
    const { lun } = this.#options;
    const told = await readPortGroups(asker, lun);
    // A unit that does not know the command has one state for all ports.
    if ('error' in told) return false;
    if (member !== undefined) this.#groups.set(member, await ownPortGroup(asker, lun));
    for (const { member: each, path } of this.paths) {
      const group = told.groups.find(({ group }) => group === this.#groups.get(each));
      if (group !== undefined) this.#accessIs(each, path, group);
    }
    const ours = member === undefined ? null : this.#groups.get(member);
    return told.groups.some(({ group }) => group === ours);
  }

  #accessIs(member: PathMember, path: Path, group: TargetPortGroup): void {
    path.isPreferred = group.preferred;
    if (path.access === group.state) return;
    const from = path.access;
    const wasUsable = this.isUsable;
    path.access = group.state;
    if (!path.isUp) return;
    this.#told(member, path, { from, reason: `target port group ${group.group}` });
    if (wasUsable && !this.isUsable) this.#isUnusable(member, `its port is ${group.state}`);
    if (!wasUsable && this.isUsable) this.#options.usable();
  }

  #isUp(member: PathMember, path: Path): void {
    if (path.isUp && path.isUsable) return;
    const wasUsable = this.isUsable;
    const from = path.isUp ? path.access : 'down';
    path.isUp = true;
    if (!path.isUsable) return;
    this.#told(member, path, { from, reason: FOUND });
    if (!wasUsable) this.#options.usable();
  }

  /** The unit has told something over the path that may concern the path only. */
  #attention(path: Path, attention: Attention): void {
    const member = this.#members.get(path);
    if (member !== undefined && ACCESS_CHANGES.has(attention)) this.#askAgain(member);
    const access = ACCESS_OF.get(attention);
    if (member === undefined || access === undefined || access === path.access) return;
    const from = path.access;
    path.access = access;
    this.#told(member, path, { from, reason: attention });
    this.check(member);
    if (!this.isUsable) this.#isUnusable(member, attention);
  }

  /** The states of the groups have changed: the paths that wait are checked, too. */
  #askAgain(member: PathMember): void {
    this.#readAccess(this.#askerOf(member)).catch(productError);
    for (const each of this.paths) if (!each.path.isUsable) this.check(each.member);
  }

  #askerOf(member: PathMember): ScsiExecutor {
    return {
      execute: (request) => member.execute(request),
      pause: (ms) => pause(this.#options.clock, ms),
    };
  }

  #told(
    member: PathMember,
    path: Path,
    { from, reason }: { readonly from: string; readonly reason: string },
  ): void {
    const to = path.isUp ? path.access : 'down';
    this.#options.stateChanged({ member, from, to, reason });
  }

  #switched(from: Path | null, to: Path): void {
    const [before, after] = [from && this.#members.get(from), this.#members.get(to)];
    if (after === undefined) return;
    const reason = from === null || from.isUsable ? 'it is better' : 'the one before is gone';
    this.#options.switched(before ?? null, after, reason);
  }

  /** Has the old tasks of a path that is gone ended over one that lives. */
  async #prove(path: Path): Promise<void> {
    const { lun, clock } = this.#options;
    while (!this.#isClosed && this.port.isFencing(path)) {
      const living = this.paths.find((each) => each.path.isUsable)?.member;
      if (living !== undefined && (await living.resetUnit(lun))) {
        this.port.provenOver(path);
        return;
      }
      await pause(clock, FENCE_RETRY_MS);
    }
  }
}
