import { pause } from '../../base/clock.js';
import { LinkError } from '../../base/errors.js';
import type { LogicalUnit } from '../../bridge/logical-unit.js';
import type { EventBody, ScsiAnswer, ScsiRequest } from '../../config/contract.js';
import { formatPortal } from '../../iscsi/login/portal.js';
import type { LunLifecycle } from '../../lun/lun-lifecycle.js';
import type { Runtime } from '../../lun/runtime.js';
import type { ScsiPort } from '../../scsi/command.js';
import type { Attention, VerdictAction } from '../../scsi/sense-table.js';
import type { BlockSessionOptions } from '../block-session-options.js';
import type { SessionTarget } from '../protocol-config.js';
import type { QueueDepthDriver } from '../queue-depth-driver.js';
import { SessionClient } from '../session-client.js';
import type { SessionEvent } from '../session-event.js';
import { MemberNews } from './member-news.js';
import { PathMember } from './path-member.js';
import {
  identityOfPath,
  isSamePlace,
  type OtherTarget,
  otherPlaces,
  type PathPlace,
} from './path-places.js';
import { SpareHarm } from './spare-harm.js';
import { adoptCommands } from './unit-path.js';
import { UnitPaths } from './unit-paths.js';

type SessionPathsOptions = {
  readonly runtime: Runtime;
  readonly target: SessionTarget &
    Pick<BlockSessionOptions, 'options' | 'mayHaveGhosts' | 'spares' | 'others'>;
  /** The session that was there first. */
  readonly leader: SessionClient;
  readonly depth: QueueDepthDriver;
  /** Publishes an event of the session with this ID. */
  readonly emit: (sessionId: string, body: EventBody) => void;
  /** What a command of ours met, that concerns the unit and not the path. */
  readonly attention: (lun: number, attention: Attention, action: VerdictAction) => void;
  /** A session besides the first one is logged in: it is time to `spread`. */
  readonly reached: (member: PathMember) => void;
  /** The login of this spare path makes the target end other sessions. */
  readonly harmful: (spare: PathMember) => void;
};

/** What becomes of the unit of one LUN if its paths come and go. */
export type UnitHooks = {
  readonly unit: () => LogicalUnit;
  readonly usable: () => void;
  readonly unusable: (reason: string) => void;
  readonly settled: () => void;
};

const REPORT_LUNS = 0xa0;
/** Default of the option `pathCheckSeconds`. */
const CHECK_SECONDS = 5;
/** How long commands over a path that is being logged out may take, and how often that is seen. */
const DRAIN_MS_MAX = 10_000;
const DRAIN_POLL_MS = 20;

/**
 * The sessions to one target over which its disks are reached: one, or one or more for each of
 * several portals. The first is the session that people know; the others have identities that
 * follow from its identity and their place. As long as there is one nothing is different from a
 * session without paths: commands go to it directly, and its LUNs hear of its state.
 */
export class SessionPaths {
  readonly #options: SessionPathsOptions;
  readonly #leader: PathMember;
  readonly #members: PathMember[];
  readonly #places = new Map<PathMember, PathPlace>();
  readonly #news = new Map<PathMember, MemberNews>();
  readonly #units = new Map<number, UnitPaths>();
  readonly #spareHarm: SpareHarm;
  #isSpread = false;
  /** The search for disks uses this session until they have paths. */
  searcher: PathMember;
  /** A session that was logged out may be there yet: the target has not answered. */
  #hasLeftGhosts = false;

  constructor(options: SessionPathsOptions) {
    this.#options = options;
    this.#spareHarm = new SpareHarm(options.runtime.clock);
    const mayHaveGhosts = options.target.mayHaveGhosts === true;
    this.#leader = this.#memberOf(options.leader, { mayHaveGhosts });
    this.#members = [this.#leader];
    this.searcher = this.#leader;
  }

  get members(): readonly PathMember[] {
    return this.#members;
  }

  /** Where the sessions go, the first one first: for a process that comes after this one. */
  get places(): readonly PathPlace[] {
    return this.#members.map((member) => this.#placeOf(member));
  }

  /** The disks are reached over several sessions, and are lost only with all of them. */
  get isSpread(): boolean {
    return this.#isSpread;
  }

  /** A session that can be used now exists. */
  get isReachable(): boolean {
    return this.#members.some(({ isLoggedIn }) => isLoggedIn);
  }

  unitOf(lun: number): UnitPaths | undefined {
    return this.#units.get(lun);
  }

  /**
   * Has the paths that the options want, once the first session has its portal; nothing is served
   * yet. That session keeps to this portal from now on.
   */
  open(): void {
    const { target, leader } = this.#options;
    if (this.#isSpread || !isWanted(target)) return;
    const { sessionsPerPortal = 1 } = target.options;
    const spares = target.spares ?? [];
    const own = otherPlaces(leader.session.portals, { sessionsPerPortal, spares });
    const places = [...own, ...(target.others ?? [])];
    if (places.length === 0) return;
    const mayHaveGhosts = target.mayHaveGhosts === true;
    for (const place of places) this.#members.push(this.#newMember(place, mayHaveGhosts));
    this.spread([]);
  }

  /** A session of this place exists, be it logged in or not. */
  has(place: PathPlace): boolean {
    return this.#members.some((member) => {
      const its = this.#placeOf(member);
      const { remote } = member.client;
      return (
        isSamePlace(its, place) ||
        (remote !== null && isSamePlace({ ...its, portal: remote }, place))
      );
    });
  }

  /**
   * One more session; its owner starts it. The disks are spread over it once it is logged in:
   * what is never reached costs nothing.
   */
  add(place: PathPlace): PathMember {
    const member = this.#newMember(place, false);
    this.#members.push(member);
    for (const [lun, paths] of this.#units) this.#addTo(paths, lun, member);
    return member;
  }

  /**
   * The disks have several paths from now on, those of `lifecycles` too, which had the first
   * session until now. One that serves goes on to.
   */
  spread(lifecycles: readonly LunLifecycle[]): void {
    if (this.#isSpread) return;
    this.#isSpread = true;
    const leader = this.#leader;
    leader.client.session.portals.keepCurrent();
    leader.client.isOnePath = true;
    for (const lifecycle of lifecycles) this.#spreadUnit(lifecycle);
    // What a process before has left is the fence's business, over whichever portal group it was.
    for (const { client } of this.#members) client.session.requestsFailed();
  }

  /** A place that a discovery had reported was requested. True if that is new. */
  isNamed(place: PathPlace): boolean {
    const member = this.#members.find((each) => isSamePlace(this.#placeOf(each), place));
    if (member === undefined || !member.isSpare) return false;
    member.isSpare = false;
    this.#places.set(member, { ...this.#placeOf(member), isSpare: false });
    for (const paths of this.#units.values()) {
      const each = paths.of(member);
      if (each !== undefined) each.path.isSpare = false;
    }
    return true;
  }

  #spreadUnit(lifecycle: LunLifecycle): void {
    const { unit, state } = lifecycle;
    if (state === 'closed') return;
    const isServing = state === 'serving' && this.#leader.isLoggedIn;
    if (!isServing) lifecycle.sessionLost('its paths are being looked at');
    const paths = this.#newUnit(
      unit.lun,
      unitHooks(() => lifecycle),
    );
    const own = paths.of(this.#leader);
    if (own !== undefined) adoptCommands(own, paths.port);
    unit.disk.usePort(paths.port);
    this.begin(unit.lun, { isFound: isServing });
  }

  /** The paths to a LUN as one port, for a disk that is being made. */
  portOf(lun: number, hooks: UnitHooks): ScsiPort {
    const paths = this.#newUnit(lun, hooks);
    if (this.#options.target.mayHaveGhosts === true) paths.fenceFormer();
    return paths.port;
  }

  #newUnit(lun: number, hooks: UnitHooks): UnitPaths {
    const { runtime, target, emit, attention } = this.#options;
    const { pathPolicy = 'least-queue', pathCheckSeconds = CHECK_SECONDS } = target.options;
    const { alua = 'implicit' } = target.options;
    this.remove(lun);
    const paths = new UnitPaths({
      ...hooks,
      lun,
      clock: runtime.clock,
      turn: () => runtime.flushes.turn,
      policy: pathPolicy,
      alua,
      checkIntervalMs: () => pathCheckSeconds * 1000,
      allowUnidentified: target.options.allowUnidentified === true,
      attention: (met) => attention(lun, met, 'attention'),
      stateChanged: ({ member, from, to, reason }) =>
        emit(member.client.sessionId, {
          event: 'pathState',
          lun,
          portal: formatPortal(member.portal),
          ...(member.other === null ? {} : { target: member.other.targetName }),
          from,
          to,
          reason,
        }),
      switched: (from, to, reason) => {
        if (from === null) return;
        const { sessionId } = this.#leader.client;
        emit(sessionId, { event: 'pathSwitched', lun, from: from.name, to: to.name, reason });
      },
      warn: (message) => emit(this.#leader.client.sessionId, { event: 'warning', message }),
    });
    this.#units.set(lun, paths);
    for (const member of this.#members) this.#addTo(paths, lun, member);
    return paths;
  }

  /** The unit has the address that it has over the first session, or that of the other target. */
  #addTo(paths: UnitPaths, lun: number, member: PathMember): void {
    if (!member.reaches(lun)) return;
    const unit = member.other?.units.find((each) => each.lun === lun);
    const field = unit?.otherField ?? this.#leader.client.lunFields.hexOf(lun);
    member.client.lunFields.fix(lun, field);
    paths.add(member);
  }

  /** The unit exists; `isFound`: it was found over the searcher just now, and serves. */
  begin(lun: number, { isFound }: { readonly isFound: boolean }): void {
    this.#units.get(lun)?.begin(isFound ? this.searcher : null);
  }

  /** The other sessions log in, and go on to. */
  start(): void {
    for (const member of this.#others) member.start();
  }

  /** The session of this path is not wanted any more: its commands end, and it is logged out. */
  async removeMember(member: PathMember): Promise<void> {
    const { clock } = this.#options.runtime;
    const untilMs = clock.nowMs() + DRAIN_MS_MAX;
    const all = [...this.#units.values()];
    const paths = all.map((unit) => unit.takeOut(member));
    while (clock.nowMs() < untilMs && paths.some((path) => path !== undefined && path.inFlight > 0))
      await pause(clock, DRAIN_POLL_MS);
    await member.close();
    if (!member.isLoggedOut) this.#hasLeftGhosts = true;
    for (const unit of all) unit.remove(member);
    this.#members.splice(this.#members.indexOf(member), 1);
    if (this.searcher === member) this.searcher = this.#leader;
    this.#options.depth.remove(member.client.session);
    this.#places.delete(member);
    this.#news.delete(member);
  }

  /** One command to a LUN over a session, preferably one over which it is served. */
  send(request: ScsiRequest, onSent?: () => void): Promise<ScsiAnswer> {
    const member = this.#memberFor(request);
    if (member !== undefined) return member.execute(request, onSent);
    return Promise.reject(new LinkError('ENOTCONN', 'no session of the disk is logged in'));
  }

  /** The unit of a LUN is not used any more. */
  remove(lun: number): void {
    this.#units.get(lun)?.close();
    this.#units.delete(lun);
  }

  /** The target has answered the logouts of all the others, or has never seen them. */
  get areOthersLoggedOut(): boolean {
    return this.#others.every(({ isLoggedOut }) => isLoggedOut) && !this.#hasLeftGhosts;
  }

  /** Logs the others out; the first session is its owner's. */
  async close(): Promise<void> {
    for (const paths of this.#units.values()) paths.close();
    await Promise.all(this.#others.map((member) => member.close()));
  }

  /** Another target knows the units of a disk only, by LUNs of its own. */
  #memberFor({ lun, cdb, field }: ScsiRequest): PathMember | undefined {
    if (!this.#isSpread) return this.#leader;
    const isOfUnit = field === undefined && cdb[0] !== REPORT_LUNS;
    const isFit = ({ other }: PathMember) => other === null || isOfUnit;
    const paths = this.#units.get(lun)?.paths ?? [];
    const usable = paths.find(({ path, member }) => path.isUsable && isFit(member))?.member;
    const others = [this.searcher, ...this.#members.filter(({ other }) => other === null)];
    return (
      usable ??
      others.find(({ isLoggedIn }) => isLoggedIn) ??
      paths.find(({ member }) => member.isLoggedIn && isFit(member))?.member
    );
  }

  get #others(): readonly PathMember[] {
    return this.#members.filter((member) => member !== this.#leader);
  }

  #placeOf(member: PathMember): PathPlace {
    const { portal } = member;
    return this.#places.get(member) ?? { portal, number: 0, isSpare: false };
  }

  #newMember(place: PathPlace, mayHaveGhosts: boolean): PathMember {
    const { runtime, target, leader, depth } = this.#options;
    const identity = identityOfPath(leader.sessionId, place);
    const its = {
      ...target,
      ...(place.other === undefined ? {} : { targetName: place.other.targetName }),
      ...({ portals: [place.portal], identity, firstLogin: 'resume' } as const),
    };
    const client = new SessionClient(runtime, its, target.options);
    client.isOnePath = true;
    // What has been set since the first session began counts for all.
    Object.assign(client.session.timers, leader.session.timers);
    depth.add(client.session);
    const member = this.#memberOf(client, { mayHaveGhosts, ...place });
    this.#places.set(member, place);
    const emit = (body: EventBody) => this.#options.emit(identity.sessionId, body);
    this.#news.set(member, new MemberNews(member, leader.session.timers, emit));
    return member;
  }

  #memberOf(
    client: SessionClient,
    how: {
      readonly mayHaveGhosts: boolean;
      readonly isSpare?: boolean;
      readonly other?: OtherTarget;
    },
  ): PathMember {
    return new PathMember(client, how, {
      back: (member) => {
        if (member !== this.#leader) this.#options.reached(member);
        for (const paths of this.#units.values()) paths.memberBack(member);
        this.#judged(this.#spareHarm.loggedIn(member));
      },
      lost: (member, reason) => {
        for (const paths of this.#units.values()) paths.memberLost(member, reason);
        this.#judged(this.#spareHarm.lost(member));
      },
      attention: (member, lun, attention, action) =>
        this.#attention(member, { lun, attention, action }),
      heard: (member, event) => this.#heard(member, event),
    });
  }

  #attention(
    member: PathMember,
    met: { readonly lun: number; readonly attention: Attention; readonly action: VerdictAction },
  ): void {
    const { lun, attention, action } = met;
    const isOfUnit = this.#units.get(lun)?.attentionOfOurs(member, attention) ?? true;
    if (isOfUnit) this.#options.attention(lun, attention, action);
  }

  #judged(harmful: PathMember | null): void {
    if (harmful !== null) this.#options.harmful(harmful);
  }

  #heard(member: PathMember, event: SessionEvent): void {
    this.#news.get(member)?.heard(event);
  }
}

/** Sessions that have no disks have no paths. */
export function isWanted({ type, options }: SessionPathsOptions['target']): boolean {
  return options.multipath === 'auto' && (type === 'data' || type === 'boot');
}

/** What becomes of the unit of a lifecycle. */
export function unitHooks(lifecycle: () => LunLifecycle): UnitHooks {
  return {
    unit: () => lifecycle().unit,
    usable: () => lifecycle().sessionBack(),
    unusable: (reason) => lifecycle().sessionLost(reason),
    settled: () => lifecycle().emitHeld(),
  };
}
