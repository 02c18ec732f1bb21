import { LinkError } from '../../base/errors.js';
import type { LogicalUnit } from '../../bridge/logical-unit.js';
import type { EventBody, ScsiAnswer, ScsiRequest } from '../../config/contract.js';
import { formatPortal, type PortalAddress } from '../../iscsi/login/portal.js';
import type { Runtime } from '../../lun/runtime.js';
import type { ScsiPort } from '../../scsi/command.js';
import type { Attention, VerdictAction } from '../../scsi/sense-table.js';
import type { BlockSessionOptions } from '../block-session-options.js';
import type { SessionTarget } from '../protocol-config.js';
import { SessionClient } from '../session-client.js';
import type { SessionEvent } from '../session-event.js';
import { eventOf } from '../warning-text.js';
import { PathMember } from './path-member.js';
import { identityOfPath, otherPlaces, type PathPlace } from './path-places.js';
import { UnitPaths } from './unit-paths.js';

type SessionPathsOptions = {
  readonly runtime: Runtime;
  readonly target: SessionTarget & Pick<BlockSessionOptions, 'options' | 'mayHaveGhosts'>;
  /** The session that was there first. */
  readonly leader: SessionClient;
  /** Publishes an event of the session with this ID. */
  readonly emit: (sessionId: string, body: EventBody) => void;
  /** What a command of ours met, that concerns the unit and not the path. */
  readonly attention: (lun: number, attention: Attention, action: VerdictAction) => void;
};

/** What becomes of the unit of one LUN if its paths come and go. */
export type UnitHooks = {
  readonly unit: () => LogicalUnit;
  readonly usable: () => void;
  readonly unusable: (reason: string) => void;
  readonly settled: () => void;
};

/** Default of the option `pathCheckSeconds`. */
const CHECK_SECONDS = 5;

/**
 * Several sessions to one target, one or more for each portal, over all of which its disks are
 * reached. The first is the session that people know; the others have identities that follow from
 * its identity and their place.
 */
export class SessionPaths {
  readonly #options: SessionPathsOptions;
  readonly #leader: PathMember;
  readonly #members: PathMember[];
  readonly #units = new Map<number, UnitPaths>();

  /** `others` are the places besides that of the first session. */
  constructor(options: SessionPathsOptions, others: readonly PathPlace[]) {
    this.#options = options;
    this.#leader = this.#member(options.leader, options.leader.session.portals.current);
    options.leader.isOnePath = true;
    this.#members = [this.#leader, ...others.map((place) => this.#newMember(place))];
    // What a process before has left is the fence's business, over whichever portal group it was.
    for (const { client } of this.#members) client.session.requestsFailed();
  }

  get members(): readonly PathMember[] {
    return this.#members;
  }

  /** A session that can be used now is there. */
  get isReachable(): boolean {
    return this.#members.some(({ isLoggedIn }) => isLoggedIn);
  }

  unitOf(lun: number): UnitPaths | undefined {
    return this.#units.get(lun);
  }

  /** The paths to a LUN as one port, for a disk that is being made. */
  portOf(lun: number, hooks: UnitHooks): ScsiPort {
    const { runtime, target, emit, attention } = this.#options;
    const { pathPolicy = 'least-queue', pathCheckSeconds = CHECK_SECONDS } = target.options;
    const { alua = 'implicit' } = target.options;
    this.remove(lun);
    const paths = new UnitPaths({
      ...hooks,
      lun,
      clock: runtime.clock,
      policy: pathPolicy,
      alua,
      checkIntervalMs: () => pathCheckSeconds * 1000,
      allowUnidentified: target.options.allowUnidentified === true,
      attention: (met) => attention(lun, met, 'attention'),
      stateChanged: ({ member, from, to, reason }) =>
        emit(member.client.sessionId, {
          event: 'pathState',
          lun,
          portal: member.name,
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
    for (const member of this.#members) paths.add(member);
    if (this.#options.target.mayHaveGhosts === true) paths.fenceFormer();
    return paths.port;
  }

  /** The unit is there; `isFound`: it was found over the first session just now, and serves. */
  begin(lun: number, { isFound }: { readonly isFound: boolean }): void {
    this.#units.get(lun)?.begin(isFound ? this.#leader : null);
  }

  /** The other sessions log in, and go on to. */
  start(): void {
    for (const member of this.#members) if (member !== this.#leader) member.start();
  }

  /** One command to a LUN over a session that is there, preferably one over which it is served. */
  send(request: ScsiRequest, onSent?: () => void): Promise<ScsiAnswer> {
    const member = this.#memberFor(request.lun);
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
    return this.#members.every((member) => member === this.#leader || member.isLoggedOut);
  }

  /** Logs the others out; the first session is its owner's. */
  async close(): Promise<void> {
    for (const paths of this.#units.values()) paths.close();
    const others = this.#members.filter((member) => member !== this.#leader);
    await Promise.all(others.map((member) => member.close()));
  }

  #memberFor(lun: number): PathMember | undefined {
    const paths = this.#units.get(lun)?.paths ?? [];
    const usable = paths.find(({ path }) => path.isUsable)?.member;
    return usable ?? this.#members.find(({ isLoggedIn }) => isLoggedIn);
  }

  #newMember(place: PathPlace): PathMember {
    const { runtime, target, leader } = this.#options;
    const { portal } = place;
    const identity = identityOfPath(leader.sessionId, place);
    const its = { ...target, portals: [portal], identity, firstLogin: 'resume' } as const;
    const client = new SessionClient(runtime, its, target.options);
    client.isOnePath = true;
    return this.#member(client, portal);
  }

  #member(client: SessionClient, portal: PortalAddress): PathMember {
    const name = formatPortal(portal);
    const mayHaveGhosts = this.#options.target.mayHaveGhosts === true;
    return new PathMember(
      client,
      { name, mayHaveGhosts },
      {
        back: (member) => {
          for (const paths of this.#units.values()) paths.memberBack(member);
        },
        lost: (member, reason) => {
          for (const paths of this.#units.values()) paths.memberLost(member, reason);
        },
        attention: (member, lun, attention, action) =>
          this.#attention(member, { lun, attention, action }),
        heard: (member, event) => this.#heard(member, event),
      },
    );
  }

  #attention(
    member: PathMember,
    met: { readonly lun: number; readonly attention: Attention; readonly action: VerdictAction },
  ): void {
    const { lun, attention, action } = met;
    const isOfUnit = this.#units.get(lun)?.attentionOfOurs(member, attention) ?? true;
    if (isOfUnit) this.#options.attention(lun, attention, action);
  }

  #heard(member: PathMember, event: SessionEvent): void {
    if (member === this.#leader) return;
    const { sessionId } = member.client;
    if (event.type === 'stateChanged') {
      const { from, to, reason } = event;
      this.#options.emit(sessionId, { event: 'sessionState', from, to, reason });
      return;
    }
    const body = eventOf(event);
    if (body !== null) this.#options.emit(sessionId, body);
  }
}

/**
 * The paths of a session whose target is to be reached by several, if that is wanted: from now on
 * the session keeps to its portal, and each other place gets a session of its own. Else null.
 */
export function sessionPathsOf(options: SessionPathsOptions): SessionPaths | null {
  const { portals } = options.leader.session;
  const { multipath, sessionsPerPortal = 1 } = options.target.options;
  if (multipath !== 'auto' || options.target.type === 'informational') return null;
  const others = otherPlaces(portals, sessionsPerPortal);
  if (others.length === 0) return null;
  portals.keepCurrent();
  return new SessionPaths(options, others);
}
