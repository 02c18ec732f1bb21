import { movesOf } from '../base/state-table.js';

/**
 * What a volume is on this node:
 * - `known`: it is not here; only which disk it is stays written down;
 * - `staging`: it is being logged in and mounted; a process that finds this at its start takes it
 *   down;
 * - `staged`: it can be published;
 * - `unstaging`: it is being unmounted and logged out; a process that finds this
 *   completes it.
 */
export type VolumePhase = 'known' | 'staging' | 'staged' | 'unstaging';

export type VolumePhaseEvent =
  | 'stageBegun'
  | 'stageDone'
  | 'unstageBegun'
  | 'unstageDone'
  | 'rebooted';

export const VOLUME_MOVES = {
  known: { stageBegun: 'staging', rebooted: 'known' },
  staging: {
    stageBegun: 'staging',
    stageDone: 'staged',
    unstageBegun: 'unstaging',
    rebooted: 'known',
  },
  staged: {
    stageBegun: 'staged',
    stageDone: 'staged',
    unstageBegun: 'unstaging',
    rebooted: 'known',
  },
  unstaging: { unstageBegun: 'unstaging', unstageDone: 'known', rebooted: 'known' },
} satisfies Record<VolumePhase, Partial<Record<VolumePhaseEvent, VolumePhase>>>;

export const nextVolumePhase = movesOf<VolumePhase, VolumePhaseEvent>('a volume', VOLUME_MOVES);
