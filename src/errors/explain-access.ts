import type { ACCESS_STATES } from '../scsi/target-port-groups.js';
import type { Explanation } from './explanation.js';

type AccessState = Exclude<(typeof ACCESS_STATES)[number], 'unknown'>;

/** Asymmetric access states of target port groups (ALUA): code, meaning, and what happens. */
const STATES: Readonly<Record<AccessState, readonly [string, string, string]>> = {
  optimized: [
    '0h',
    'the target serves commands over the ports of this group at full speed',
    'No action is needed: requests use these paths first.',
  ],
  nonOptimized: [
    '1h',
    'the target serves commands more slowly, e.g. over the link between two controllers',
    'No action is needed: requests use these paths if no better one can be used.',
  ],
  standby: [
    '2h',
    'the group serves no data until the target, or SET TARGET PORT GROUPS, activates it',
    'No action is needed while another group serves the disk. If no path can be used, ' +
      '--alua explicit requests this group.',
  ],
  unavailable: [
    '3h',
    'the group rejects commands that read or write data',
    'If this state lasts, check the controller of these ports at the target.',
  ],
  blockDependent: [
    '4h',
    'the speed of a command depends on the blocks that it reads or writes',
    'No action is needed: requests use these paths if none is optimized.',
  ],
  offline: [
    'Eh',
    'the logical unit cannot be reached over the ports of this group',
    'Check the controller of these ports at the target.',
  ],
  transitioning: [
    'Fh',
    'the group changes from one access state to another',
    'No action is needed: requests use another group, or wait for the transition time that the ' +
      'target reports.',
  ],
};

/** Null for another word; letter case and hyphens do not count. */
export function explainAccessState(text: string): Explanation | null {
  const plain = (word: string) => word.toLowerCase().replaceAll(/[-_ ]/g, '');
  const found = Object.entries(STATES).find(([state]) => plain(state) === plain(text));
  if (found === undefined) return null;
  const [state, [code, explanation, nextStep]] = found;
  return {
    kind: 'accessState',
    code,
    name: `asymmetric access state ${state}`,
    layer: 'SCSI: the target port group of a path',
    explanation,
    nextStep,
    reference: 'SPC-4 §5.15 (Target port group access states), REPORT TARGET PORT GROUPS',
  };
}
