import type { ACCESS_STATES } from '../scsi/target-port-groups.js';
import type { Explanation } from './explanation.js';

type AccessState = Exclude<(typeof ACCESS_STATES)[number], 'unknown'>;

/** Asymmetric access states of target port groups (ALUA): code, meaning, and what happens. */
const STATES: Readonly<Record<AccessState, readonly [string, string, string]>> = {
  optimized: [
    '0h',
    'commands are served over the ports of the group as fast as the target can',
    'Nothing: requests go over these paths first.',
  ],
  nonOptimized: [
    '1h',
    'commands are served, but slower, e.g. over the link between two controllers',
    'Nothing: requests go over these paths if no better one can be used.',
  ],
  standby: [
    '2h',
    'the group takes over when the target, or SET TARGET PORT GROUPS, says so',
    'Nothing while another group serves. If no path can be used, --alua explicit asks for it.',
  ],
  unavailable: [
    '3h',
    'the group serves no commands for data now',
    'Check the controller of these ports at the target, if that lasts.',
  ],
  blockDependent: [
    '4h',
    'it depends on the block whether a command is served as fast as the target can',
    'Nothing: requests go over these paths if none is optimized.',
  ],
  offline: [
    'Eh',
    'the ports of the group are not there for the logical unit',
    'Check the controller of these ports at the target.',
  ],
  transitioning: [
    'Fh',
    'the group changes from one state to another',
    'Nothing: requests go over another group, or wait as long as the target says that it takes.',
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
