import type { CommandContext } from '../../src/target/faults.js';
import { ALL_THEMES, type StormScene, type Strike } from './storm-types.js';

/** INQUIRY and REPORT LUNS, which a unit answers in any state (SPC-4 §6.6, §6.33). */
const ALWAYS_ANSWERED: readonly number[] = [0x12, 0xa0];
/** What a unit may refuse while TEST UNIT READY and all questions are answered. */
const READS_AND_WRITES: readonly number[] = [0x28, 0x2a, 0x41, 0x42, 0x88, 0x8a, 0x93];

/** Key, code and qualifier of a unit that cannot serve for now. */
const ABSENCES = [
  [0x02, 0x04, 0x01],
  [0x02, 0x04, 0x0a],
  [0x02, 0x04, 0x0b],
  [0x02, 0x04, 0x0c],
  [0x02, 0x04, 0x12],
  [0x02, 0x3a, 0x00],
  [0x05, 0x25, 0x00],
] as const;

/** Codes of a LUN without a disk. */
const GONE: readonly number[] = [0x25, 0x3a];

/** The session lives, and one LUN says that it cannot serve; with luck it is back in time. */
function away(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  if (unit.isHanging) return;
  const [key, asc, ascq] = random.pick(ABSENCES);
  const opcodes = random.chance(0.3) ? READS_AND_WRITES : null;
  const part = random.chance(0.3) ? random.between(0.1, 1) : 1;
  const forMs = random.spread(10, 40_000);
  const code = [key, asc, ascq].map((each) => each.toString(16)).join('/');
  const what = opcodes === null ? 'all' : 'reads and writes';
  scene.tell(`LUN ${unit.lun} answers ${code} to ${part} of ${what} for ${forMs.toFixed(0)} ms`);
  const isMeant = ({ lun, opcode }: CommandContext) =>
    lun === unit.lun &&
    !ALWAYS_ANSWERED.includes(opcode) &&
    (opcodes === null || opcodes.includes(opcode));
  const remove = world.commands.add((context) => {
    if (!isMeant(context) || !random.chance(part)) return undefined;
    // What became of the cache of a disk that was gone is not known.
    if (GONE.includes(asc)) unit.perhapsRestarted();
    return { sense: { key, asc, ascq } };
  });
  scene.lastUntil(world.nowMs + Math.min(forMs, 20_000));
  if (scene.theme === 'weather' && random.chance(0.2)) {
    scene.undo(random.between(0, forMs), () => world.network.current?.cut());
  }
  scene.undo(forMs, remove);
}

/** One LUN cannot serve, and says so. */
export const AWAY_STRIKES: readonly Strike[] = [
  { name: 'away', weight: 2, themes: ALL_THEMES, strike: away },
];
