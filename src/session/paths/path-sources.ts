import { LinkError, productError, UsageError } from '../../base/errors.js';
import { orAborted } from '../../base/or-aborted.js';
import type { EventBody } from '../../config/contract.js';
import { formatPortal, type PortalAddress } from '../../iscsi/login/portal.js';
import { samePortal } from '../../iscsi/session/portal-list.js';
import type { LunLifecycles } from '../../lun/lun-lifecycles.js';
import type { Runtime } from '../../lun/runtime.js';
import type { BlockSessionOptions } from '../block-session-options.js';
import { discoverPortals } from '../discovery-session.js';
import type { SessionTarget } from '../protocol-config.js';
import type { QueueDepthDriver } from '../queue-depth-driver.js';
import type { SessionClient } from '../session-client.js';
import type { PathMember } from './path-member.js';
import { type OtherTarget, type OtherUnit, PATHS_MAX, type PathPlace } from './path-places.js';
import { isWanted, SessionPaths } from './session-paths.js';

/** A portal that does not answer what is only nice to know is not waited for. */
const DISCOVERY_SECONDS = 5;

type PathSourcesOptions = {
  readonly runtime: Runtime;
  readonly setup: SessionTarget & BlockSessionOptions;
  readonly leader: SessionClient;
  readonly luns: LunLifecycles;
  readonly depth: QueueDepthDriver;
  /** A path has come, or is gone. */
  readonly changed: () => void;
  readonly isClosing: () => boolean;
  /** Publishes an event of the session with this ID. */
  readonly emit: (sessionId: string, body: EventBody) => void;
};

/**
 * Where the paths of a session come from: its options, and, while it runs, portals of other groups
 * that a discovery tells, and requested logins. Each is written down, and its LUNs are
 * claimed, before it is used.
 */
export class PathSources {
  readonly paths: SessionPaths;
  readonly #options: PathSourcesOptions;
  /** One change at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: PathSourcesOptions) {
    this.#options = options;
    const { runtime, setup: target, leader, luns, depth, emit } = options;
    this.paths = new SessionPaths({
      ...{ runtime, target, leader, depth, emit },
      attention: (...met) => luns.attentionMet(...met),
      reached: ({ client, other }) => {
        this.paths.spread(luns.all);
        this.claimAt(client.remote, other);
      },
      harmful: (spare) => {
        this.#warn(
          `the target ends other sessions if portal ${formatPortal(spare.portal)} is used, too: ` +
            'it is logged out. Name it with --portals, or set multipath off',
        );
        void this.remove(spare).catch(productError);
      },
    });
    if (target.firstLogin === 'resume') this.paths.open();
  }

  /** The first session has logged in: the others that the options want follow. */
  async open(): Promise<void> {
    this.paths.open();
    if (this.paths.members.length > 1) {
      // The next process has these options, too: it knows the portals without the record.
      await this.#written().catch((error: unknown) => {
        this.#warn(`where the paths go cannot be written down: ${productError(error).message}`);
      });
    }
    this.paths.start();
  }

  /** The search for disks uses the next path that lets us log in; false: there is none. */
  async searchOverNext(signal: AbortSignal): Promise<boolean> {
    const { paths } = this;
    for (;;) {
      const own = paths.members.filter(({ other }) => other === null);
      const member = own[own.indexOf(paths.searcher) + 1];
      if (member === undefined) return false;
      paths.searcher = member;
      try {
        await orAborted(signal, () => firstLogin(member.client));
        return true;
      } catch (error) {
        signal.throwIfAborted();
        productError(error);
      }
    }
  }

  /** A session is connected to this address: a portal may be named and be the same as another. */
  claimAt(remote: PortalAddress | null, other: OtherTarget | null = null): void {
    const { setup, luns } = this.#options;
    const warn = (message: string) => this.#warn(message);
    if (other === null) void setup.claims?.takeAll(luns.luns, remote, warn);
    else if (remote !== null)
      void setup.claims
        ?.takeOther(other, remote)
        .catch((error: unknown) => warn(productError(error).message));
  }

  /**
   * Asks the portal of the session for the portals of other groups. Where the options name portals
   * they name all; a discovery that fails only means that no more are known.
   */
  async find(signal: AbortSignal): Promise<void> {
    const { setup, leader } = this.#options;
    if (!isWanted(setup) || setup.options.portals.length > 0) return;
    await whenLoggedIn(leader, signal);
    if (signal.aborted) return;
    for (const portal of await this.#portalsOfOtherGroups(signal)) {
      if (signal.aborted || this.#options.isClosing()) return;
      if (this.#isFull) {
        this.#warn(`a discovery reports more portals than the ${PATHS_MAX} that a session uses`);
        return;
      }
      await this.#add({ portal, number: 0, isSpare: true }).catch((error: unknown) => {
        this.#warn(`portal ${formatPortal(portal)} is not used: ${productError(error).message}`);
      });
    }
  }

  /**
   * One more portal, which an operator names. Rejects with the reason if it does not let us log in,
   * and then nothing has changed; with UsageError 15 if another process has a LUN by it.
   */
  async login(portal: PortalAddress): Promise<void> {
    const { paths } = this;
    const { setup } = this.#options;
    const { sessionsPerPortal = 1 } = setup.options;
    for (let number = 0; number < sessionsPerPortal; number += 1) {
      const place = { portal, number, isSpare: false };
      const member = await this.#add(place);
      if (member === null) {
        await this.#inTurn(async () => {
          if (paths.isNamed(place)) await this.#written();
        });
        continue;
      }
      try {
        await firstLogin(member.client);
      } catch (error) {
        await this.remove(member);
        throw error;
      }
    }
  }

  /**
   * A target of another name that has units of this session becomes a path of them. Rejects as
   * `login`.
   */
  async join(portal: PortalAddress, other: OtherTarget): Promise<void> {
    const { paths } = this;
    const before = paths.members.find(
      (member) =>
        member.other?.targetName === other.targetName && samePortal(member.portal, portal),
    );
    const isKnown = ({ lun }: OtherUnit) => before?.reaches(lun) === true;
    if (other.units.every(isKnown)) return;
    const old = before?.other?.units.filter(({ lun }) => !other.units.some((it) => it.lun === lun));
    if (before !== undefined) await this.remove(before);
    const all = { ...other, units: [...(old ?? []), ...other.units] };
    const member = await this.#add({ portal, number: 0, isSpare: false, other: all });
    if (member === null) return;
    try {
      await firstLogin(member.client);
    } catch (error) {
      await this.remove(member);
      throw error;
    }
  }

  /** The session of the path is logged out, and no next process has it. */
  remove(member: PathMember): Promise<void> {
    return this.#inTurn(async () => {
      await this.paths.removeMember(member);
      await this.#written();
      this.#options.changed();
    });
  }

  get #isFull(): boolean {
    return this.paths.members.length >= PATHS_MAX;
  }

  /** Null: it exists already. */
  #add(place: PathPlace): Promise<PathMember | null> {
    const { paths } = this;
    const { setup, luns, isClosing } = this.#options;
    return this.#inTurn(async () => {
      if (paths.has(place)) return null;
      if (this.#isFull) throw new UsageError(`A session has ${PATHS_MAX} paths at most.`);
      if (place.other !== undefined) await setup.claims?.takeOther(place.other, place.portal);
      else await setup.claims?.addPortal(place.portal, luns.luns);
      await setup.onPaths?.([...paths.places, place]);
      // The close of the session logs out those that exist.
      if (isClosing()) throw new LinkError('ECONNABORTED', 'the session is being logged out');
      const member = paths.add(place);
      member.start();
      this.#options.changed();
      return member;
    });
  }

  async #written(): Promise<void> {
    await this.#options.setup.onPaths?.(this.paths.places);
  }

  #warn(message: string): void {
    const { leader, emit } = this.#options;
    emit(leader.sessionId, { event: 'warning', message });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work, work);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #portalsOfOtherGroups(signal: AbortSignal): Promise<readonly PortalAddress[]> {
    const { setup, leader, runtime } = this.#options;
    const { targetName, options } = setup;
    const { session } = leader;
    const own = session.connection?.parameters?.targetPortalGroupTag ?? null;
    if (own === null || targetName === undefined) return [];
    const quick = {
      ...options,
      loginTimeoutSeconds: Math.min(options.loginTimeoutSeconds, DISCOVERY_SECONDS),
      taskTimeoutSeconds: DISCOVERY_SECONDS,
    };
    const portal = session.portal ?? session.portals.current;
    try {
      const found = await discoverPortals({ portal, targetName, runtime }, quick, signal);
      const others = (found ?? []).filter(
        ({ portalGroupTag: tag }) => tag !== undefined && tag !== own,
      );
      return others.map(({ host, port }) => ({ host, port }));
    } catch (error) {
      if (!signal.aborted) productError(error);
      return [];
    }
  }
}

/** Resolves once the session is logged in, or the signal has come, or the session is closed. */
function whenLoggedIn(client: SessionClient, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (client.session.state === 'loggedIn' || signal.aborted) {
      resolve();
      return;
    }
    const end = () => {
      unlisten();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const unlisten = client.listen((event) => {
      if (event.type !== 'stateChanged') return;
      if (event.to === 'loggedIn' || event.to === 'closed') client.whenSettled(end);
    });
    signal.addEventListener('abort', end, { once: true });
  });
}

/** Resolves once the session is logged in; rejects with the reason of the first attempt. */
function firstLogin(client: SessionClient): Promise<void> {
  return new Promise((resolve, reject) => {
    if (client.session.state === 'loggedIn') resolve();
    const unlisten = client.listen((event) => {
      const isEnd = event.type === 'stateChanged' && event.to === 'closed';
      const isIn = event.type === 'stateChanged' && event.to === 'loggedIn';
      if (!isEnd && !isIn && event.type !== 'attemptFailed') return;
      unlisten();
      if (isIn) resolve();
      else if (event.type === 'attemptFailed') reject(event.error);
      else reject(new LinkError('ECONNABORTED', 'the session was logged out'));
    });
  });
}
