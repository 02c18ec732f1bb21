import type { Clock } from '../../base/clock.js';
import type { LogicalUnit } from '../../bridge/logical-unit.js';
import type { PathPolicy } from '../../bridge/paths/path-choice.js';
import type { Alua } from '../../config/contract.js';
import type { Attention } from '../../scsi/sense-table.js';
import type { PathMember } from './path-member.js';

export type PathStateChange = {
  readonly member: PathMember;
  readonly from: string;
  readonly to: string;
  readonly reason: string;
};

export type UnitPathsOptions = {
  readonly lun: number;
  readonly clock: Clock;
  /** As in `PathsPortHooks`. */
  readonly turn: () => number;
  readonly policy: PathPolicy;
  readonly alua: Alua;
  /** Pause between two checks of a path. */
  readonly checkIntervalMs: () => number;
  readonly allowUnidentified: boolean;
  /** The unit, once there is one. */
  readonly unit: () => LogicalUnit;
  /** The first path can be used again: the disk has to be probed, and serves after that. */
  readonly usable: () => void;
  /** No path can be used any more; called before commands come back, and `settled` after. */
  readonly unusable: (reason: string) => void;
  readonly settled: () => void;
  /** The unit has told a command of ours what concerns more than one path. */
  readonly attention: (attention: Attention) => void;
  readonly stateChanged: (change: PathStateChange) => void;
  readonly switched: (from: PathMember | null, to: PathMember, reason: string) => void;
  readonly warn: (message: string) => void;
};
