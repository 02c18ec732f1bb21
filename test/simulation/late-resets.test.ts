import { test } from 'vitest';
import { CellUser, valueOnDisk } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = 30;
const ABORT_TASK = 1;
const LOGICAL_UNIT_RESET = 5;
/** RFC 7143 §11.6.1 (Response): task management function not supported. */
const NOT_SUPPORTED = 5;
const TASK_TIMEOUT_SECONDS = 3;

test('a write that was sent while a reset was pending does not overwrite a newer one', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({
      random,
      session: {
        taskTimeoutSeconds: TASK_TIMEOUT_SECONDS,
        logicalUnitResetTimeoutSeconds: 30,
        queueDepthMax: 16,
      },
    });
    world.network.latencyMs = random.spread(0.1, 10);
    await world.start();
    const { faults } = world.node;
    const isWarm = random.chance(0.3);
    const resetMs = random.spread(200, 5000);
    const slowMs = resetMs + random.spread(500, 10_000);
    let isResetting = false;
    let hasStuck = false;
    world.commands.add(() => {
      if (!hasStuck) {
        hasStuck = true;
        return 'ignore';
      }
      return isResetting ? { delayMs: slowMs } : undefined;
    });
    faults.onTaskManagement = (code) =>
      code === ABORT_TASK || (isWarm && code === LOGICAL_UNIT_RESET) ? NOT_SUPPORTED : undefined;
    faults.taskManagementDelayMs = (code) => {
      if (code === ABORT_TASK || (isWarm && code === LOGICAL_UNIT_RESET)) return 0;
      isResetting = true;
      world.clock.at(world.nowMs + resetMs, () => {
        isResetting = false;
      });
      return resetMs;
    };
    const user = new CellUser(world);
    const stuck = user.write(0, 1);
    await world.when(() => isResetting, 20_000);
    await world.pass(random.between(0, resetMs * 0.9));
    const cells = [1, 2, 3].slice(0, random.whole(1, 3));
    const older = cells.map((cell) => user.write(cell, 2));
    for (const asked of [stuck, ...older]) await user.done(asked);
    for (const cell of cells) await user.done(user.write(cell, 3));
    await user.done(user.flush());
    await world.pass(20_000);
    const wrong = cells.filter((cell) => valueOnDisk(world, cell) !== 3);
    await world.end({ force: true });
    if (wrong.length === 0 && world.faults.length === 0) return null;
    return `cells ${wrong} hold an older value, ${world.faults.join(', ')}`;
  });
});

test('tasks that another initiator has cleared are all repeated soon after the attention', async () => {
  await eachSeed(10, async (random) => {
    const taskTimeoutSeconds = random.pick([5, 10, 30]);
    const depth = random.pick([16, 32, 64]);
    const world = new World({ random, session: { taskTimeoutSeconds, queueDepthMax: depth } });
    world.network.latencyMs = random.spread(0.1, 10);
    await world.start();
    const remove = world.commands.add(() => ({ delayMs: 1000 }));
    const user = new CellUser(world);
    const writes = Array.from({ length: depth }, (_, cell) => user.write(cell, 1));
    await world.pass(500);
    remove();
    world.node.clearTaskSet(TARGET_NAME, 0);
    // This one has the attention, if the depth leaves room for it.
    const read = user.ask(200);
    const clearedAtMs = world.nowMs;
    for (const asked of [...writes, read]) await user.done(asked, 300_000);
    const lastMs = Math.max(...writes.map((asked) => asked.answeredAtMs)) - clearedAtMs;
    const wrong = writes.findIndex((_, cell) => valueOnDisk(world, cell) !== 1);
    await world.end({ force: true });
    if (wrong >= 0) return `cell ${wrong} was acknowledged and is not there`;
    // Without the attention each of them would be as late as its own timeout, and no later.
    const boundMs = taskTimeoutSeconds * 1000 + 3000;
    return lastMs <= boundMs ? null : `the last of ${depth} writes took ${lastMs.toFixed(0)} ms`;
  });
});
