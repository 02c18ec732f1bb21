import { movesOf } from '../base/state-table.js';

/**
 * Life of a LUN as its users see it; the answer to "may a held request go to this disk?".
 *
 * - `serving`: requests go to the target;
 * - `checking`: requests are held; the session is logged in, and a probe finds out which disk it
 *   is;
 * - `away`: requests are held; the session is gone, or the target says that the disk is not there;
 * - `returning`: the same disk is back after its removal, and its export or device is being made;
 * - `removed`: requests fail, and the export or device is gone; probes go on;
 * - `closed`: the session is being logged out, or another process took the device; nothing follows.
 */
export const LUN_STATES = [
  'serving',
  'checking',
  'away',
  'returning',
  'removed',
  'closed',
] as const;
export type LunState = (typeof LUN_STATES)[number];

export type LunEvent =
  | 'sessionLost'
  | 'sessionBack'
  /** The disk, or a caller, reports that it may be another one, or have other properties. */
  | 'probeRequested'
  | 'sameDiskFound'
  | 'otherDiskFound'
  /** The target answers, and no disk does. */
  | 'noDiskFound'
  | 'removalLatencyPassed'
  | 'exported'
  /** It is exported, and may have become another disk meanwhile. */
  | 'exportedTooLate'
  | 'exportFailed'
  | 'closeRequested';

/**
 * While the export of a LUN that is back is being made (`returning`) everything else waits for its
 * end. A probe that a LUN which is `away` gets every few seconds does not make it `checking`.
 */
export const LUN_MOVES = {
  serving: {
    sessionLost: 'away',
    probeRequested: 'checking',
    closeRequested: 'closed',
  },
  checking: {
    sessionLost: 'away',
    sessionBack: 'checking',
    probeRequested: 'checking',
    sameDiskFound: 'serving',
    otherDiskFound: 'removed',
    noDiskFound: 'away',
    removalLatencyPassed: 'removed',
    closeRequested: 'closed',
  },
  away: {
    sessionLost: 'away',
    sessionBack: 'checking',
    probeRequested: 'away',
    sameDiskFound: 'serving',
    otherDiskFound: 'removed',
    noDiskFound: 'away',
    removalLatencyPassed: 'removed',
    closeRequested: 'closed',
  },
  returning: {
    sessionLost: 'returning',
    sessionBack: 'returning',
    probeRequested: 'returning',
    sameDiskFound: 'returning',
    otherDiskFound: 'removed',
    noDiskFound: 'returning',
    exported: 'serving',
    exportedTooLate: 'away',
    exportFailed: 'removed',
    closeRequested: 'closed',
  },
  removed: {
    sessionLost: 'removed',
    sessionBack: 'removed',
    probeRequested: 'removed',
    sameDiskFound: 'returning',
    otherDiskFound: 'removed',
    noDiskFound: 'removed',
    closeRequested: 'closed',
  },
  closed: {
    closeRequested: 'closed',
  },
} as const satisfies Record<LunState, Partial<Record<LunEvent, LunState>>>;

export const lunMove = movesOf<LunState, LunEvent>('LUN', LUN_MOVES);

/** Its requests wait. */
export function isHeld(state: LunState): boolean {
  return state === 'checking' || state === 'away' || state === 'returning';
}
