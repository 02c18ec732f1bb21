import { LinkError } from '../base/errors.js';
import type { DiskSearch } from '../lun/find-disks.js';
import { threadRuntime } from '../lun/runtime.js';
import type { BlockSession } from './block-session.js';
import type { SessionClient } from './session-client.js';

/** How long the login at another portal may take, with those that fail before it. */
const LOGIN_MS_MAX = 60_000;

/** How the disks of a session that begins are looked for. */
export function diskSearch(stack: BlockSession, signal: AbortSignal): DiskSearch {
  let left = stack.handle.session.portals.all.length - 1;
  return {
    signal,
    onWarning: (message) => stack.warn(message),
    otherPortal: async () => {
      if (left <= 0) return false;
      left -= 1;
      stack.warn('the disk is on standby at this portal; the next one is tried');
      await moveOn(stack.handle, signal);
      return true;
    },
  };
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
      if (event.type !== 'stateChanged') return;
      if (event.to === 'loggedIn') done(null);
      if (event.to === 'closed') done(event.error ?? new LinkError('ECONNABORTED', event.reason));
    });
    signal.addEventListener('abort', stop, { once: true });
    handle.initiator.dispatch((session, nowMs) => {
      session.portals.moveOn();
      session.logOutToReturn(nowMs, session.timers.logoutTimeoutMs);
    });
  });
}
