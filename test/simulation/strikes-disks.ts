import { CELL_BYTES } from './cell-content.js';
import { exchange, exchangeInLook } from './disk-exchange.js';
import { ALL_THEMES, type StormScene, type Strike, WEATHER } from './storm-types.js';
import { destaged } from './strikes-target.js';
import { TARGET_NAME } from './world.js';

/** Another disk is behind the LUN when the target is back. */
function otherDisk(scene: StormScene): void {
  const { random, world } = scene;
  if (scene.isStarting) return;
  const target = world.node.targets.get(TARGET_NAME)!;
  const unit = scene.victim();
  const forMs = random.spread(1000, 30_000);
  scene.tell(`another disk is behind LUN ${unit.lun} for ${forMs.toFixed(0)} ms`);
  unit.mayFail = true;
  const restart = () => {
    for (const link of [...world.network.links]) link.cut();
    world.node.restart();
    for (const each of scene.units) each.perhapsRestarted();
  };
  restart();
  target.luns.set(unit.lun, unit.decoy);
  scene.undo(forMs, () => {
    restart();
    target.luns.set(unit.lun, unit.disk);
  });
}

function growth(scene: StormScene): void {
  const { disk, lun } = scene.victim();
  scene.tell(`LUN ${lun} grows`);
  disk.resize(disk.sizeBytes + scene.random.whole(1, 16) * CELL_BYTES);
}

/** The disk asks for attention in the middle of everything. */
function attention(scene: StormScene): void {
  const unit = scene.victim();
  const told = scene.random.pick([
    { asc: 0x29, ascq: 0x00 },
    { asc: 0x2a, ascq: 0x01 },
    { asc: 0x2a, ascq: 0x09 },
    { asc: 0x3f, ascq: 0x03 },
    { asc: 0x3f, ascq: 0x0e },
    { asc: 0x28, ascq: 0x00 },
  ]);
  scene.tell(`LUN ${unit.lun}: attention ${told.asc.toString(16)}/${told.ascq.toString(16)}`);
  if (told.asc === 0x29) unit.perhapsRestarted();
  scene.world.node.raiseAttention(TARGET_NAME, unit.lun, told);
}

/** The power of the disk fails in a living session: its cache and its tasks are gone. */
function powerLoss(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  const lose = (tries: number) => {
    if (scene.isCalm) return;
    // What is acknowledged on the wire is neither before the loss nor after it.
    if (tries > 0 && world.network.current?.isQuiet !== true) {
      scene.undo(random.between(0.1, 5), () => lose(tries - 1));
      return;
    }
    if (tries === 0) return;
    scene.tell(`LUN ${unit.lun} loses its power and says so`);
    for (const session of world.node.sessions) session.endTasks((task) => task.lun === unit.lun);
    unit.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
    unit.lostPower();
    if (random.chance(0.2) && !scene.isStarting) {
      scene.undo(random.spread(20, 3000), () => scene.replaceProcess('takesOver'));
    }
  };
  lose(100);
}

/** The LUN is gone and says so; its neighbours hear once that the list of LUNs has changed. */
function vanish(scene: StormScene): void {
  const { random, world } = scene;
  if (scene.isStarting) return;
  const unit = scene.victim();
  // The reset of a LUN that is not there is refused, and the one of the target harms them all.
  if (unit.isHanging) return;
  const forMs = random.spread(500, 40_000);
  scene.tell(`LUN ${unit.lun} is gone for ${forMs.toFixed(0)} ms`);
  unit.mayFail = true;
  world.node.setLun(TARGET_NAME, unit.lun, null);
  scene.undo(forMs, () => world.node.setLun(TARGET_NAME, unit.lun, unit.disk));
}

/** The LUN takes commands and answers none; with luck it takes aborts. */
function hang(scene: StormScene): void {
  const { random, world } = scene;
  const unit = scene.victim();
  const forMs = random.spread(1000, scene.theme === 'neighbours' ? 60_000 : 20_000);
  const target = world.node.targets.get(TARGET_NAME);
  if (unit.isHanging || target?.luns.get(unit.lun) === undefined) return;
  unit.isHanging = true;
  const refusesAbort = random.chance(0.3);
  const alarms = random.chance(0.5);
  scene.tell(
    `LUN ${unit.lun} hangs for ${forMs.toFixed(0)} ms, refuses aborts: ${refusesAbort}, the list ` +
      `of LUNs changes: ${alarms}`,
  );
  unit.model.flushMayAlwaysFail = true;
  const remove = world.commands.add(({ lun }) => (lun === unit.lun ? 'ignore' : undefined));
  if (refusesAbort) world.node.faults.onTaskManagement = (code) => (code === 1 ? 5 : undefined);
  if (alarms) {
    scene.undo(random.between(0, forMs / 2), () => {
      for (const lun of world.luns) {
        world.node.raiseAttention(TARGET_NAME, lun, { asc: 0x3f, ascq: 0x0e });
      }
    });
  }
  scene.lastUntil(world.nowMs + Math.min(forMs, 20_000));
  scene.undo(forMs, () => {
    remove();
    unit.isHanging = false;
    if (refusesAbort) world.node.faults.onTaskManagement = undefined;
  });
}

/** What happens to one disk. */
export const DISK_STRIKES: readonly Strike[] = [
  { name: 'otherDisk', weight: 1, themes: WEATHER, strike: otherDisk },
  { name: 'exchange', weight: 1.5, themes: ALL_THEMES, strike: exchange },
  { name: 'exchangeInLook', weight: 1.5, themes: ALL_THEMES, strike: exchangeInLook },
  { name: 'growth', weight: 0.5, themes: ALL_THEMES, strike: growth },
  { name: 'attention', weight: 1, themes: ALL_THEMES, strike: attention },
  { name: 'powerLoss', weight: 1.5, themes: WEATHER, strike: powerLoss },
  { name: 'vanish', weight: 1, themes: ALL_THEMES, strike: vanish },
  { name: 'hang', weight: 1, themes: ALL_THEMES, strike: hang },
];
