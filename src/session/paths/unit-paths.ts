import { pause } from '../../base/clock.js';
import { LinkError, productError } from '../../base/errors.js';
import { ACCESS_OF, isServing, type Path } from '../../bridge/paths/path.js';
import { PathChoice } from '../../bridge/paths/path-choice.js';
import { PathsPort } from '../../bridge/paths/paths-port.js';
import { ProbePace } from '../../lun/probe-run.js';
import { type Attention, isOfPort } from '../../scsi/sense-table.js';
import { FenceProof } from './fence-proof.js';
import { PathCheck } from './path-check.js';
import type { PathMember } from './path-member.js';
import { type PathAccess, PortStates } from './port-states.js';
import { Transitions } from './transitions.js';
import {
  MAY_BE_OTHER,
  meetsOwnReset,
  newUnitPath,
  OF_THE_PAST,
  type UnitPath,
} from './unit-path.js';
import type { UnitPathsOptions } from './unit-paths-options.js';

const FOUND = 'the disk was found over it';
/** Longest pause between two checks of a path while no path of the disk can be used. */
const OUTAGE_CHECK_MS = 5000;

/**
 * The paths of one logical unit: which can be used, and how that is found out. Whether the unit can
 * be used follows from the paths and the fence, and is reported by `#settle` only.
 */
export class UnitPaths {
  readonly port: PathsPort;
  readonly #options: UnitPathsOptions;
  readonly #members: UnitPath[] = [];
  readonly #proof: FenceProof;
  readonly #check: PathCheck;
  readonly #transitions: Transitions;
  readonly #states: PortStates;
  /** What was reported last. */
  #isServed = false;
  #isClosed = false;

  constructor(options: UnitPathsOptions) {
    this.#options = options;
    this.port = new PathsPort(new PathChoice(options.policy), {
      turn: options.turn,
      pathAttention: (path, attention) => {
        const each = this.#members.find((one) => one.path === path);
        if (each !== undefined && meetsOwnReset(each, attention)) return 'ours';
        if (each !== undefined) this.#met(each, attention);
        return 'news';
      },
      isHeld: () => options.unit().queue.mode !== 'open',
      isAwaited: () => this.#isAwaited,
      fenceNeeded: (fence) => this.#proof.begin(fence),
      switched: (from, to) => this.#switched(from, to),
    });
    this.#check = new PathCheck(options);
    this.#proof = new FenceProof({
      ...options,
      port: this.port,
      check: this.#check,
      ready: () => this.#ready,
      wasNotOurs: (each) => {
        this.#met(each, 'reset');
        options.attention('reset');
      },
      wasReset: () => options.attention('modeChanged'),
      changed: (reason) => this.#settle(reason),
    });
    this.#transitions = new Transitions(options.clock, (each, reason) =>
      this.#settle(reason, each),
    );
    this.#states = new PortStates({
      ...options,
      check: this.#check,
      paths: () => this.#members,
      accessIs: (each, what) => this.#accessIs(each, what),
      tryAgain: (each) => this.check(each),
    });
  }

  /**
   * Requests can be served: a path can be used, or will be once its port has changed its state, and
   * old writes do not keep new ones waiting.
   */
  get isUsable(): boolean {
    return (this.port.isUsable || this.#isAwaited) && !this.#proof.isOverdue;
  }

  get #isAwaited(): boolean {
    return this.#transitions.isUnderWay && !this.port.isUsable;
  }

  get paths(): readonly UnitPath[] {
    return this.#members;
  }

  get #ready(): readonly UnitPath[] {
    return this.#members.filter(({ path }) => path.isUsable);
  }

  /** The path over the session of the member. */
  of(member: PathMember): UnitPath | undefined {
    return this.#members.find((each) => each.member === member);
  }

  add(member: PathMember): void {
    const each = newUnitPath(member, this.#options);
    this.#members.push(each);
    this.port.add(each.path);
  }

  /**
   * The unit exists. Over the session of `found` its disk was found just now, and it serves; if
   * that is null it has to be found first.
   */
  begin(found: PathMember | null): void {
    this.#isServed = found !== null;
    for (const each of this.#members) {
      if (!each.member.isLoggedIn) continue;
      each.path.nexus = each.member.nexus;
      each.path.happened('sessionBack');
      if (each.member === found) {
        each.path.happened('sameDiskFound');
        this.#told(each, 'down', FOUND);
      }
      this.check(each);
    }
  }

  /** The member is none of the paths any more; its session is logged out by the caller. */
  remove(member: PathMember): void {
    const each = this.of(member);
    if (each === undefined) return;
    this.#members.splice(this.#members.indexOf(each), 1);
    each.stopCheck();
    each.failures.close();
    this.port.remove(each.path);
  }

  /** No request goes over the session any more; requests that wait there go over another path. */
  takeOut(member: PathMember): Path | undefined {
    const each = this.of(member);
    if (each === undefined) return undefined;
    this.#gone(each, 'the path is being logged out', () => undefined);
    this.port.takenOut(each.path);
    return each.path;
  }

  /** Writes wait until what a process before this one has left at the target has ended. */
  fenceFormer(): void {
    this.port.fence(null);
  }

  memberBack(member: PathMember): void {
    const each = this.of(member);
    if (each === undefined) return;
    each.path.nexus = member.nexus;
    each.ownResets.clear();
    each.path.happened('sessionBack');
    this.#proof.loggedIn(each.path);
    this.check(each);
  }

  memberLost(member: PathMember, reason: string): void {
    const each = this.of(member);
    if (each === undefined) return;
    if (each.path.isUsable) each.failures.failed();
    this.#gone(each, reason, () => this.port.pathDown(each.path));
  }

  #gone(each: UnitPath, reason: string, takeDown: () => void): void {
    each.stopCheck();
    const from = each.path.words;
    each.path.happened('sessionLost');
    this.#transitions.over(each);
    takeDown();
    this.#told(each, from, reason);
    this.#settle(reason, each);
  }

  /**
   * A command of ours has met it over the session. True if it concerns the unit, and not the path
   * only.
   */
  attentionOfOurs(member: PathMember, attention: Attention): boolean {
    const each = this.of(member);
    if (each === undefined) return true;
    if (meetsOwnReset(each, attention)) return false;
    if (OF_THE_PAST.has(attention) && !each.path.isUsable && this.#ready.length > 0) {
      // If it were about now, the paths that are used would get it, too: see `#pastIsOver`.
      each.past = attention;
      each.path.happened('doubted');
      return false;
    }
    this.#met(each, attention);
    return !ACCESS_OF.has(attention) || !this.isUsable;
  }

  /** Finds out, from now on and again and again, whether the path can be used. */
  check(each: UnitPath): void {
    each.stopCheck();
    if (this.#isClosed || !each.member.isLoggedIn) return;
    const stop = new AbortController();
    each.stopCheck = () => stop.abort();
    void this.#checking(each, stop.signal);
  }

  close(): void {
    this.#isClosed = true;
    this.#proof.close();
    this.#transitions.close();
    for (const each of this.#members) {
      each.stopCheck();
      each.failures.close();
    }
    this.port.giveUp();
  }

  async #checking(each: UnitPath, signal: AbortSignal): Promise<void> {
    const { clock, checkIntervalMs } = this.#options;
    const intervalMs = () =>
      this.#isServed && !this.#isAwaited
        ? checkIntervalMs()
        : Math.min(checkIntervalMs(), OUTAGE_CHECK_MS);
    const pace = new ProbePace(intervalMs);
    let said: string | null = null;
    while (!signal.aborted && each.member.isLoggedIn) {
      const why = await this.#once(each, signal).catch(
        (error: unknown) => productError(error).message,
      );
      if (signal.aborted || !each.member.isLoggedIn) return;
      if (why !== said) {
        said = why;
        if (why !== null)
          this.#options.warn(`the path over ${each.member.name} cannot be used: ${why}`);
      }
      await pause(clock, why === null ? checkIntervalMs() : pace.nextMs(), signal);
    }
  }

  /** Why the unit cannot be used over the session; null if it can. */
  async #once(each: UnitPath, signal: AbortSignal): Promise<string | null> {
    const why = await this.#whyUnusable(each, signal);
    const isOutage = why !== null && !this.port.isUsable && !this.#isAwaited;
    if (!isOutage || signal.aborted || !(await this.#states.optimize(each))) return why;
    return signal.aborted ? null : this.#whyUnusable(each, signal);
  }

  async #whyUnusable(each: UnitPath, signal: AbortSignal): Promise<string | null> {
    const { path, member } = each;
    const ready = await this.#check.isReady(member).catch((error: unknown) => {
      // The answer that is lost may have been the one about the power: it is reported once.
      if (error instanceof LinkError && !path.isUsable) each.past ??= 'powerOn';
      throw error;
    });
    if (signal.aborted) return null;
    if (ready.action === 'retryAfterDelay') return path.isUsable ? null : ready.words;
    if (ready.action !== 'success') {
      await this.#states.refused(each, ready, () => signal.aborted);
      return ready.words;
    }
    const { doubts } = path;
    await this.#states.ask(each, () => signal.aborted);
    if (signal.aborted || path.isUsable) return null;
    if (!isServing(path.access)) return `its port is ${path.access}`;
    const why = await this.#check.whyNotSame(member, this.#options.unit().facts);
    if (signal.aborted || why !== null) return why;
    await this.#pastIsOver(each);
    if (signal.aborted) return null;
    if (path.doubts !== doubts) return 'the disk has changed while it was being read';
    this.#isFound(each);
    return null;
  }

  /**
   * A unit attention that a new session has met may be about what happened before it. If the disk
   * had lost its power now, the sessions that are there would get it, too: one of them has to deny
   * it. If none does, the attention counts.
   */
  async #pastIsOver(each: UnitPath): Promise<void> {
    const { past } = each;
    if (past === null) return;
    for (const other of this.#ready) {
      if (other === each) continue;
      // It has been used all the time.
      const before = other.path.doubts;
      if ((await this.#check.isQuiet(other)) && other.path.doubts === before) {
        each.past = null;
        return;
      }
    }
    if (each.past === null) return;
    each.past = null;
    this.port.cacheMayBeLost(null);
    this.#options.attention(past);
  }

  #isFound(each: UnitPath): void {
    const from = each.path.words;
    const hasWatcher = this.#ready.length > 0;
    each.path.happened('sameDiskFound');
    each.failures.isBack();
    this.#transitions.over(each);
    // A disk that loses its power while it is not at the LUN has no initiator to report that to.
    if (each.wasGone && !hasWatcher) this.#options.unit().disk.cache.mayBeLost();
    each.wasGone = false;
    this.#told(each, from, FOUND);
    this.#settle(FOUND);
    if (this.#isServed) this.port.release();
  }

  /** The unit has told something over the path, to whichever command. */
  #met(each: UnitPath, attention: Attention): void {
    const access = ACCESS_OF.get(attention);
    if (attention === 'lunGone') each.wasGone = true;
    if (attention === 'powerOn' || attention === 'reset') this.port.cacheMayBeLost(each.path);
    if (access !== undefined) {
      // In which state without service a port is, its group reports: see `PortStates`.
      if (isOfPort(attention) && !isServing(each.path.access)) return;
      this.#accessIs(each, { access, reason: attention });
    } else if (MAY_BE_OTHER.has(attention)) {
      const { words: from, isUsable: wasUsable } = each.path;
      each.path.happened('doubted');
      this.#changed(each, { from, wasUsable, reason: attention });
    } else if (attention === 'accessStateChanged') {
      this.#statesChanged(each).catch(productError);
    }
  }

  async #statesChanged(each: UnitPath): Promise<void> {
    await this.#states.ask(each);
    for (const other of this.#members) if (!other.path.isUsable) this.check(other);
  }

  #accessIs(
    each: UnitPath,
    { access, preferred = each.path.isPreferred, reason }: PathAccess,
  ): void {
    const { words: from, isUsable: wasUsable } = each.path;
    each.path.accessIs(access, preferred);
    if (access === 'transitioning') this.#transitions.begun(each, this.#check.transitionSeconds);
    else if (!isServing(access)) this.#transitions.over(each);
    this.#changed(each, { from, wasUsable, reason });
  }

  #changed(
    each: UnitPath,
    how: { readonly from: string; readonly wasUsable: boolean; readonly reason: string },
  ): void {
    this.#told(each, how.from, how.reason);
    if (each.path.isUsable) return;
    this.#settle(how.reason, each);
    if (!how.wasUsable) return;
    this.port.takenOut(each.path);
    this.check(each);
  }

  /** Tells whether the unit can be used, if that has changed. */
  #settle(reason: string, of?: UnitPath): void {
    const is = this.isUsable;
    if (is === this.#isServed || this.#isClosed) return;
    this.#isServed = is;
    if (is) {
      this.#options.usable();
      return;
    }
    this.#options.unusable(reason);
    this.port.giveUp();
    if (of?.path.state === 'down') of.member.client.whenSettled(() => this.#options.settled());
    else this.#options.settled();
    for (const each of this.#members) if (each !== of && !each.path.isUsable) this.check(each);
  }

  #told(each: UnitPath, from: string, reason: string): void {
    const { member, path } = each;
    const to = path.words;
    each.reason = reason;
    if (to !== from) this.#options.stateChanged({ member, from, to, reason });
  }

  #switched(from: Path | null, to: Path): void {
    const [before, after] = [from, to].map((path) =>
      this.#members.find((each) => each.path === path),
    );
    if (after === undefined) return;
    const reason = from?.isUsable !== false ? 'it is better' : 'the one before is gone';
    this.#options.switched(before?.member ?? null, after.member, reason);
  }
}
