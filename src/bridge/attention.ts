import type { Attention } from '../scsi/sense-table.js';

/**
 * What a unit attention asks for, beyond sending the command again:
 * - `nothing`: it is told, no more;
 * - `checkDisk`: nothing goes to the unit until its facts have been read again and the identity
 *   gate has found the same disk: then size, write protection and limits are the new ones;
 * - `checkLuns`: that, and REPORT LUNS: units have come or gone.
 */
export type AttentionAct = 'nothing' | 'checkDisk' | 'checkLuns';

export function actOn(attention: Attention): AttentionAct {
  switch (attention) {
    case 'lunsChanged':
      return 'checkLuns';
    case 'mediumChanged':
    case 'inquiryChanged':
    case 'capacityChanged':
    case 'modeChanged':
    // Mode parameters are back to the saved ones, write protection with them.
    case 'powerOn':
    case 'reset':
      return 'checkDisk';
    case 'nexusLost':
    case 'cachedWriteLost':
    case 'reservationsPreempted':
    case 'accessStateChanged':
    case 'commandsCleared':
    case 'thresholdReached':
    case 'other':
      return 'nothing';
  }
}

export type LunChanges = { readonly appeared: readonly number[]; readonly gone: readonly number[] };

/**
 * Which units have to be looked at or taken away after REPORT LUNS. `wanted` are the LUNs the user
 * asked for, null for all: others that appear are none of our business.
 */
export function lunChanges(luns: {
  readonly served: readonly number[];
  readonly reported: readonly number[];
  readonly wanted: readonly number[] | null;
}): LunChanges {
  const { served, reported, wanted } = luns;
  return {
    appeared: reported.filter(
      (lun) => !served.includes(lun) && (wanted === null || wanted.includes(lun)),
    ),
    gone: served.filter((lun) => !reported.includes(lun)),
  };
}
