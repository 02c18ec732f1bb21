import type { Strike, Theme } from './storm-types.js';
import { AWAY_STRIKES } from './strikes-away.js';
import { CLIENT_STRIKES } from './strikes-clients.js';
import { COMMAND_STRIKES } from './strikes-commands.js';
import { DISK_STRIKES } from './strikes-disks.js';
import { NETWORK_STRIKES } from './strikes-network.js';
import { RESET_STRIKES } from './strikes-resets.js';
import { TARGET_STRIKES } from './strikes-target.js';

const STRIKES: readonly Strike[] = [
  ...NETWORK_STRIKES,
  ...TARGET_STRIKES,
  ...COMMAND_STRIKES,
  ...RESET_STRIKES,
  ...DISK_STRIKES,
  ...AWAY_STRIKES,
  ...CLIENT_STRIKES,
];

/** Everything that can go wrong in a storm of this theme; `only` some of it, by name. */
export function strikesOf(theme: Theme, only: readonly string[] | null): readonly Strike[] {
  return STRIKES.filter(
    ({ name, themes }) => themes.includes(theme) && (only === null || only.includes(name)),
  );
}
