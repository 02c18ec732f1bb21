import { invariant } from '../../base/errors.js';

/**
 * Life of a session. What becomes of its disks while it is `reconnecting` is not the session's
 * business: attempts go on whether or not they have been removed.
 */
export type SessionState = 'loggingIn' | 'loggedIn' | 'reconnecting' | 'loggingOut' | 'closed';

export type SessionStateEvent =
  | 'resumed'
  | 'loginSucceeded'
  | 'loginGivenUp'
  | 'linkLost'
  | 'logoutRequested'
  | 'logoutFinished';

export const SESSION_MOVES = {
  loggingIn: {
    resumed: 'reconnecting',
    loginSucceeded: 'loggedIn',
    loginGivenUp: 'closed',
    logoutRequested: 'loggingOut',
  },
  loggedIn: {
    linkLost: 'reconnecting',
    logoutRequested: 'loggingOut',
  },
  reconnecting: {
    loginSucceeded: 'loggedIn',
    logoutRequested: 'loggingOut',
  },
  loggingOut: {
    logoutRequested: 'loggingOut',
    logoutFinished: 'closed',
  },
  closed: {},
} as const satisfies Record<SessionState, Partial<Record<SessionStateEvent, SessionState>>>;

/** The state after `event`; InvariantError when the table has no such move. */
export function sessionMove(state: SessionState, event: SessionStateEvent): SessionState {
  const moves: Partial<Record<SessionStateEvent, SessionState>> = SESSION_MOVES[state];
  const next = moves[event];
  invariant(next, `session: no move from ${state} on ${event}`);
  return next;
}
