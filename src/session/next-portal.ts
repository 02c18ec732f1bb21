import { LinkError, productError } from '../base/errors.js';
import type { SessionOptions } from '../config/contract.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { DiskSearch } from '../lun/find-disks.js';
import { threadRuntime } from '../lun/runtime.js';
import type { BlockSession } from './block-session.js';
import { discoverPortals } from './discovery-session.js';
import type { SessionClient } from './session-client.js';

/** How long the login at another portal may take, with those that fail before it. */
const LOGIN_MS_MAX = 60_000;

/** A portal that does not answer what is only nice to know is not waited for. */
const DISCOVERY_SECONDS = 5;

type PortalWalkOptions = {
  readonly targetName: string;
  /** Those of the session: a discovery logs in with them too. */
  readonly options: SessionOptions;
  /** Ends the walk at once, with its reason. */
  readonly signal: AbortSignal;
  readonly warn: (message: string) => void;
};

/**
 * The way of a session over the portals of its target, for a disk that is on standby: those that
 * are configured first, then those that a discovery tells. The function logs out in order, and in
 * at the next portal; it resolves to false if `tried` portals beside the first were all there are.
 */
export function portalWalk(
  handle: SessionClient,
  options: PortalWalkOptions,
): (tried: number) => Promise<boolean> {
  const { signal, warn } = options;
  const { portals } = handle.session;
  let isDiscovered = false;
  return async (tried) => {
    if (tried >= portals.all.length - 1 && !isDiscovered) {
      isDiscovered = true;
      const asked = handle.session.portal ?? portals.current;
      for (const portal of await portalsOfTarget(asked, options)) portals.add(portal);
    }
    if (tried >= portals.all.length - 1) return false;
    warn('the disk is on standby at this portal; the next one is tried');
    await moveOn(handle, signal);
    return true;
  };
}

/** How the disks of a session that begins are found. */
export function diskSearch(
  stack: BlockSession,
  options: Omit<PortalWalkOptions, 'warn'>,
): DiskSearch {
  const { signal } = options;
  const warn = (message: string) => stack.warn(message);
  const walk = portalWalk(stack.handle, { ...options, warn });
  const otherPath = async () => {
    const { pathSources } = stack;
    warn(
      `the disk is on standby at portal ${pathSources.paths.searcher.name}; the next one is tried`,
    );
    return pathSources.searchOverNext(signal);
  };
  const otherPortal = (tried: number) => (stack.paths === null ? walk(tried) : otherPath());
  return { signal, onWarning: warn, otherPortal };
}

/** A discovery that fails only means that no more portals are known. */
async function portalsOfTarget(
  portal: PortalAddress,
  { targetName, options, warn, signal }: PortalWalkOptions,
): Promise<readonly PortalAddress[]> {
  const quick = {
    ...options,
    loginTimeoutSeconds: Math.min(options.loginTimeoutSeconds, DISCOVERY_SECONDS),
    taskTimeoutSeconds: DISCOVERY_SECONDS,
  };
  try {
    const found = await discoverPortals({ portal, targetName }, quick, signal);
    return (found ?? []).map(({ host, port }) => ({ host, port }));
  } catch (error) {
    if (signal.aborted) throw error;
    const { message } = productError(error);
    warn(`the disk is on standby, and a discovery reports no other portal: ${message}`);
    return [];
  }
}

/** Logs out in order, and in at the next portal. */
function moveOn(handle: SessionClient, signal: AbortSignal): Promise<void> {
  const { clock } = threadRuntime();
  return new Promise((resolve, reject) => {
    const done = (error: unknown) => {
      cancel();
      unlisten();
      signal.removeEventListener('abort', stop);
      if (error === null) resolve();
      else reject(error);
    };
    const stop = () => done(signal.reason);
    const late = () => done(new LinkError('ETIMEDOUT', 'no other portal let us log in'));
    const cancel = clock.at(clock.nowMs() + LOGIN_MS_MAX, late);
    const unlisten = handle.listen((event) => {
      if (event.type === 'stuck') done(event.error);
      if (event.type !== 'stateChanged') return;
      if (event.to === 'loggedIn') done(null);
      if (event.to === 'closed') done(event.error ?? new LinkError('ECONNABORTED', event.reason));
    });
    if (signal.aborted) {
      stop();
      return;
    }
    signal.addEventListener('abort', stop, { once: true });
    handle.initiator.dispatch((session, nowMs) => {
      session.portals.moveOn();
      session.logOutToReturn(nowMs, session.timers.logoutTimeoutMs);
    });
  });
}
