import type { Path } from '../../bridge/paths/path.js';
import type { OwnPort } from '../../lun/port-groups.js';
import type { Attention } from '../../scsi/sense-table.js';
import type { PathFailures } from './path-failures.js';
import type { PathMember } from './path-member.js';

/** One path of a unit with what is known of it besides. */
export type UnitPath = {
  readonly member: PathMember;
  readonly path: Path;
  readonly failures: PathFailures;
  /** Ends the check that runs, and all that would follow it. */
  stopCheck: () => void;
  /** Its port, as the unit names it; null: it has not told yet. */
  ownPort: OwnPort | null;
  /** Target port group of its port; null: the unit has not told of any. */
  group: number | null;
  /** What a new session has met that may be about the time before it. */
  past: Attention | null;
  /** The target had no such unit over it since it was last used. */
  wasGone: boolean;
};

/** Attentions that each nexus gets of one event: a new session meets them long after it. */
export const OF_THE_PAST: ReadonlySet<Attention> = new Set<Attention>([
  'powerOn',
  'reset',
  'nexusLost',
]);
/** Attentions after which another disk may be there, be it because nobody has watched it. */
export const MAY_BE_OTHER: ReadonlySet<Attention> = new Set<Attention>([
  'inquiryChanged',
  'lunsChanged',
  'lunGone',
  'mediumChanged',
  ...OF_THE_PAST,
]);
