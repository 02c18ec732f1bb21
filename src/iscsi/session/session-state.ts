import { movesOf } from '../../base/state-table.js';

/**
 * Life of a session. What becomes of its disks while it is `reconnecting` is not the session's
 * business: attempts continue whether or not they have been removed.
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

export const sessionMove = movesOf<SessionState, SessionStateEvent>('session', SESSION_MOVES);
