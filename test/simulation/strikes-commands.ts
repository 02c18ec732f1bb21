import { ALL_THEMES, type StormScene, type Strike, WEATHER } from './storm-types.js';
import type { StormUnit } from './storm-unit.js';
import { TARGET_NAME } from './world.js';

const WRITE_OPCODES: readonly number[] = [0x2a, 0x8a];
const WRITE_SAME_OPCODES: readonly number[] = [0x41, 0x93];
const INQUIRY = 0x12;

function badCommands(scene: StormScene): void {
  const { random, world } = scene;
  const { faults } = world.node;
  const what = random.pick([
    'ignore',
    'drop-connection',
    'drop-response',
    'drop-connection-after',
    { status: 0x08 },
    { status: 0x28 },
    { sense: { key: 0x0b, asc: 0x47, ascq: 0 } },
    { sense: { key: 0x02, asc: 0x04, ascq: 0x01 } },
  ] as const);
  if (what === 'ignore' || what === 'drop-response') {
    for (const unit of scene.units) unit.model.flushMayAlwaysFail = true;
  }
  const part = random.between(0.05, 1);
  let left = random.whole(1, 6);
  scene.tell(`${left} commands meet ${JSON.stringify(what)}`);
  if (random.chance(0.3)) faults.onTaskManagement = () => 'ignore';
  world.commands.add(() => {
    if (left === 0 || !random.chance(part)) return undefined;
    left -= 1;
    return what;
  });
}

/** Writes that were slow arrive at the disk although their link has gone. */
function ghosts(scene: StormScene): void {
  const { random, world } = scene;
  const delayMs = random.spread(10, 5000);
  scene.tell(`commands take ${delayMs.toFixed(0)} ms, and outlive the link`);
  // The session may abort what takes so long, and then its answer is lost.
  for (const unit of scene.units) unit.model.flushMayAlwaysFail = true;
  let left = 6;
  world.commands.add(() => {
    if (left === 0) return undefined;
    left -= 1;
    return { delayMs, outlivesLink: true };
  });
  scene.undo(random.spread(10, 5000), () => world.network.current?.cut());
}

/** Longer than any number of tries, and then the unit attention that always comes. */
function becomingReady(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  if (unit.wasBusy) return;
  unit.wasBusy = true;
  const what = random.pick([
    { status: 0x08 },
    { status: 0x28 },
    { sense: { key: 0x02, asc: 0x04, ascq: 0x01 } },
    { sense: { key: 0x02, asc: 0x04, ascq: 0x0a } },
  ] as const);
  const attention = random.pick([
    { asc: 0x29, ascq: 0x00 },
    { asc: 0x2a, ascq: 0x06 },
    { asc: 0x2a, ascq: 0x01 },
  ]);
  const forMs = random.chance(0.5) ? random.spread(100, 25_000) : random.between(25_000, 50_000);
  const code = `${attention.asc.toString(16)}/${attention.ascq.toString(16)}`;
  const answer = JSON.stringify(what);
  scene.tell(`LUN ${unit.lun} answers ${answer} for ${forMs.toFixed(0)} ms, then says ${code}`);
  const end = world.commands.add(({ lun, opcode }) =>
    lun === unit.lun && opcode !== INQUIRY ? what : undefined,
  );
  scene.lastUntil(world.nowMs + forMs + 1000);
  scene.undo(forMs, () => {
    end();
    if (attention.asc === 0x29) unit.perhapsRestarted();
    world.node.raiseAttention(TARGET_NAME, unit.lun, attention);
  });
}

/** A few commands of the victim end with GOOD, and nothing is done. */
function undone(
  scene: StormScene,
  unit: StormUnit,
  how: { readonly opcodes: readonly number[]; readonly undone: 'unasked' | 'residual' },
): void {
  const { random, world } = scene;
  let left = random.whole(1, 2);
  scene.tell(`${left} commands to LUN ${unit.lun} end with GOOD and nothing done: ${how.undone}`);
  const remove = world.commands.add(({ lun, opcode }) => {
    if (left === 0 || lun !== unit.lun || !how.opcodes.includes(opcode)) return undefined;
    left -= 1;
    return { undone: how.undone };
  });
  scene.undo(random.spread(1000, 20_000), remove);
}

/** What the disk answers to commands. */
export const COMMAND_STRIKES: readonly Strike[] = [
  { name: 'badCommands', weight: 1, themes: WEATHER, strike: badCommands },
  { name: 'ghosts', weight: 1, themes: WEATHER, strike: ghosts },
  { name: 'becomingReady', weight: 1, themes: ALL_THEMES, strike: becomingReady },
  {
    name: 'residual',
    weight: 0.5,
    themes: ALL_THEMES,
    strike: (scene) => {
      undone(scene, scene.victim(), { opcodes: WRITE_OPCODES, undone: 'residual' });
    },
  },
  {
    name: 'unasked',
    weight: 0.5,
    themes: ALL_THEMES,
    strike: (scene) => {
      undone(scene, scene.victim(), { opcodes: WRITE_OPCODES, undone: 'unasked' });
    },
  },
  {
    name: 'zerosUndone',
    weight: 0.5,
    themes: ALL_THEMES,
    strike: (scene) => {
      undone(scene, scene.victim(), { opcodes: WRITE_SAME_OPCODES, undone: 'residual' });
    },
  },
];
