import { movesOf } from '../../base/state-table.js';

/**
 * States of an initiator connection with the RFC's own numbers
 * (RFC 7143 §8.1.1 (State Descriptions for Initiators and Targets)); S3 is the target's alone. A
 * connection begins in S2 (T1 is its construction) and is not used again once it is in S1 or S8.
 */
export type ConnectionState =
  | 'S1-free'
  | 'S2-xptWait'
  | 'S4-inLogin'
  | 'S5-loggedIn'
  | 'S6-inLogout'
  | 'S7-logoutRequested'
  | 'S8-cleanupWait';

export type ConnectionStateEvent =
  | 'linkOpened'
  | 'loginAccepted'
  | 'loginFailed'
  | 'logoutSent'
  | 'logoutAskedFor'
  | 'logoutAccepted'
  | 'logoutFailed'
  | 'linkLost';

/** One move a line; the comment names the transition of §8.1.2. */
export const CONNECTION_MOVES = {
  'S1-free': {},
  'S2-xptWait': {
    linkLost: 'S1-free', // T2
    linkOpened: 'S4-inLogin', // T4
  },
  'S4-inLogin': {
    loginAccepted: 'S5-loggedIn', // T5
    loginFailed: 'S1-free', // T7
    linkLost: 'S1-free', // T7
  },
  'S5-loggedIn': {
    logoutSent: 'S6-inLogout', // T9
    logoutAskedFor: 'S7-logoutRequested', // T11
    linkLost: 'S8-cleanupWait', // T15
  },
  'S6-inLogout': {
    logoutAccepted: 'S1-free', // T13
    logoutAskedFor: 'S6-inLogout', // T14
    logoutFailed: 'S8-cleanupWait', // T17
    linkLost: 'S8-cleanupWait', // T17
  },
  'S7-logoutRequested': {
    logoutSent: 'S6-inLogout', // T10
    logoutAskedFor: 'S7-logoutRequested', // T12
    linkLost: 'S8-cleanupWait', // T16
  },
  'S8-cleanupWait': {
    linkLost: 'S8-cleanupWait', // already cleaning up
  },
} as const satisfies Record<
  ConnectionState,
  Partial<Record<ConnectionStateEvent, ConnectionState>>
>;

export const connectionMove = movesOf<ConnectionState, ConnectionStateEvent>(
  'connection',
  CONNECTION_MOVES,
);
