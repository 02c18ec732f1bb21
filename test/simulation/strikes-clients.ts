import { ProductError } from '../../src/base/errors.js';
import { CELL_BYTES } from './cell-content.js';
import { COMMAND } from './model-client.js';
import { ALL_THEMES, type StormScene, type Strike, WEATHER } from './storm-types.js';
import type { StormUnit } from './storm-unit.js';

/** INQUIRY, READ CAPACITY(10) and (16), TEST UNIT READY: what people and scripts ask. */
const QUESTIONS = [
  { cdb: [0x12, 0, 0, 0, 96, 0], length: 96 },
  { cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], length: 8 },
  { cdb: [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], length: 32 },
  { cdb: [0, 0, 0, 0, 0, 0], length: 0 },
] as const;
/** A question is asked again when the answer is that something has changed. */
const QUESTION_TRIES_MAX = 8;

function clientLeaves(scene: StormScene): void {
  const unit = scene.random.pick(scene.units);
  const open = unit.openClients();
  if (open.length > 0) scene.replace(unit, scene.random.pick(open));
}

/**
 * A write is slow, its client goes and comes back, and then what was slow is lost or put off: by the
 * link, or by a disk that is busy.
 */
function clientLeavesInTrouble(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  const waitMs = random.spread(20, 3000);
  const how = random.pick(['link', 'busy'] as const);
  scene.tell(`a write to LUN ${unit.lun} will be slow, then meets: ${how}`);
  let first: { readonly lba: number; readonly blockCount: number } | null = null;
  const remove = world.commands.add(({ lun, opcode, lba, blockCount }) => {
    const isWrite = opcode === 0x2a || opcode === 0x8a;
    if (lun !== unit.lun || !isWrite || lba === null || blockCount === null) return undefined;
    if (first !== null) return undefined;
    first = { lba, blockCount };
    scene.undo(waitMs, () => leaveWith(scene, unit, first?.lba ?? 0));
    if (how === 'link') scene.undo(2 * waitMs, () => world.network.current?.cut());
    return how === 'busy' ? { status: 0x08 } : 'ignore';
  });
  // Busy for this write alone, until its client has been gone for a while.
  const isBusy = (lba: number | null) => how === 'busy' && first !== null && lba === first.lba;
  let isPast = false;
  const removeBusy = world.commands.add(({ lun, lba }) =>
    lun === unit.lun && !isPast && isBusy(lba) ? { status: 0x08 } : undefined,
  );
  scene.undo(20_000, () => {
    remove();
    removeBusy();
  });
  const untilMs = 2 * waitMs;
  const watch = () => {
    if (first === null) scene.undo(100, watch);
    else
      scene.undo(untilMs, () => {
        isPast = true;
      });
  };
  watch();
}

function leaveWith(scene: StormScene, unit: StormUnit, lba: number): void {
  const cell = Math.floor((lba * unit.disk.blockSizeBytes) / CELL_BYTES);
  const isIt = (job: { command: number; cells: readonly number[] }) =>
    job.command === COMMAND.write && job.cells.includes(cell);
  const job = [...unit.jobs].find(isIt);
  if (job !== undefined) scene.replace(unit, job.client);
}

/** An operator asks the target over the session of the disks, and uses the answers. */
function question(scene: StormScene): void {
  const { random, world } = scene;
  const unit = random.pick(scene.units);
  const asked = random.pick(QUESTIONS);
  const { handle } = world.stack;
  const request = {
    lun: unit.lun,
    cdb: Buffer.from(asked.cdb),
    direction: asked.length > 0 ? ('read' as const) : ('none' as const),
    length: asked.length,
  };
  scene.tell(`somebody asks LUN ${unit.lun}: ${request.cdb.toString('hex')}`);
  const ask = async () => {
    for (let left = QUESTION_TRIES_MAX; left > 0; left -= 1) {
      const { status } = await handle.execute(request);
      if (status === 0) return;
    }
  };
  ask().catch((error: unknown) => {
    if (!(error instanceof ProductError) || error.code === 'ERR_INVARIANT') throw error;
  });
}

/** Questions come for a while, whatever else happens. */
function questions(scene: StormScene): void {
  const { random } = scene;
  const everyMs = random.spread(20, 2000);
  let left = random.whole(1, 30);
  const next = () => {
    left -= 1;
    question(scene);
    if (left > 0) scene.undo(everyMs, next);
  };
  next();
}

/** The process is killed, perhaps while the network swallows what it sends. */
function kill(scene: StormScene): void {
  const { random, world } = scene;
  const mayStartAnew = scene.units.every((unit) => !unit.mayFail);
  const how = mayStartAnew && random.chance(0.5) ? 'startsAnew' : 'takesOver';
  if (random.chance(0.4)) {
    scene.replaceProcess(how);
    return;
  }
  const blindMs = random.spread(100, 3000);
  scene.tell(`the network swallows everything for ${blindMs.toFixed(0)} ms and more`);
  world.network.become('blackhole');
  scene.undo(blindMs, () => scene.replaceProcess(how));
  scene.undo(blindMs + random.spread(10, 5000), () => world.network.become('up'));
}

/** Who uses the disks. */
export const CLIENT_STRIKES: readonly Strike[] = [
  { name: 'clientLeaves', weight: 1.5, themes: ALL_THEMES, strike: clientLeaves },
  { name: 'clientLeavesInTrouble', weight: 1.5, themes: WEATHER, strike: clientLeavesInTrouble },
  { name: 'questions', weight: 2, themes: ALL_THEMES, strike: questions },
  { name: 'kill', weight: 1, themes: WEATHER, strike: kill },
];
