import { movesOf } from '../../base/state-table.js';

/**
 * Life of a path; the answer to "may a request go over it?".
 *
 * - `down`: its session is not logged in;
 * - `checking`: the session is logged in, and the disk is not known to be the same over it, or
 *   cannot be used over it now;
 * - `ready`: the identity of the disk was read over it in this session, and nothing since has said
 *   that it may be another one.
 */
export const PATH_STATES = ['down', 'checking', 'ready'] as const;
export type PathState = (typeof PATH_STATES)[number];

export type PathEvent =
  | 'sessionBack'
  | 'sessionLost'
  /** The unit, or its port, has said what makes all that was read before worthless. */
  | 'doubted'
  | 'sameDiskFound';

export const PATH_MOVES = {
  down: {
    sessionBack: 'checking',
    sessionLost: 'down',
    doubted: 'down',
  },
  checking: {
    sessionBack: 'checking',
    sessionLost: 'down',
    doubted: 'checking',
    sameDiskFound: 'ready',
  },
  ready: {
    sessionBack: 'checking',
    sessionLost: 'down',
    doubted: 'checking',
    sameDiskFound: 'ready',
  },
} as const satisfies Record<PathState, Partial<Record<PathEvent, PathState>>>;

export const pathMove = movesOf<PathState, PathEvent>('path', PATH_MOVES);
