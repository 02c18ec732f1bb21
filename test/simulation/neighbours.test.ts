import { expect, test } from 'vitest';
import { CellUser, valueOnDisk } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = 10;
/** What a LUN that is well may take to answer, whatever its neighbours do. */
const ANSWER_MS_MAX = 5000;
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };

test('a LUN that does not respond does not keep its neighbour from responding', async () => {
  await eachSeed(SEEDS, async (random) => {
    const queueDepthMax = random.pick([4, 16, 64]);
    const world = new World({ random, luns: 2, session: { queueDepthMax } });
    await world.start();
    world.commands.add(({ lun }) => (lun === 1 ? 'ignore' : undefined));
    const hung = new CellUser(world, 1);
    for (let cell = 0; cell < 2 * queueDepthMax; cell += 1) hung.write(cell, 1);
    await world.pass(random.between(0, 100));
    const user = new CellUser(world, 0);
    const asked = [user.write(0, 1), user.ask(1)];
    await world.pass(ANSWER_MS_MAX);
    const late = asked.filter(({ reply }) => reply?.error !== 0).length;
    await world.end({ force: true });
    return late === 0 ? null : `${late} of 2 requests have no answer after ${ANSWER_MS_MAX} ms`;
  });
});

test('writes held for a missing LUN leave room for those of its neighbour', async () => {
  await eachSeed(SEEDS, async (random) => {
    const heldBytesMax = random.pick([1 << 16, 1 << 18]);
    const world = new World({
      random,
      luns: 2,
      session: { heldBytesMax, removalLatencySeconds: random.pick([20, Number.POSITIVE_INFINITY]) },
    });
    await world.start();
    world.node.setLun(TARGET_NAME, 1, null);
    const held = new CellUser(world, 1);
    held.ask(0);
    await world.pass(1000);
    for (let cell = 0; cell < 100; cell += 1) held.write(cell, 1);
    await world.pass(random.between(0, 100));
    const user = new CellUser(world, 0);
    const asked = [user.write(0, 1), user.ask(1)];
    await world.pass(ANSWER_MS_MAX);
    const late = asked.filter(({ reply }) => reply?.error !== 0).length;
    await world.end({ force: true });
    return late === 0 ? null : `${late} of 2 requests have no answer after ${ANSWER_MS_MAX} ms`;
  });
});

test('a LUN is not removed because its probe waits for a neighbour that does not respond', async () => {
  await eachSeed(SEEDS, async (random) => {
    const removalLatencySeconds = random.pick([2, 5, 20]);
    const world = new World({
      random,
      luns: 2,
      session: { queueDepthMax: 16, removalLatencySeconds },
    });
    await world.start();
    world.commands.add(({ lun }) => (lun === 1 ? 'ignore' : undefined));
    const hung = new CellUser(world, 1);
    const user = new CellUser(world, 0);
    world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
    const told = user.ask(0);
    for (let cell = 0; cell < 32; cell += 1) hung.write(cell, 1);
    await world.pass((removalLatencySeconds + 5) * 1000);
    const removed = world.events.find(
      (event) => event.event === 'deviceRemoved' && event.lun === 0,
    );
    const { reply } = told;
    await world.end({ force: true });
    if (removed !== undefined) return 'LUN 0 was removed';
    return reply?.error === 0 ? null : `the read has ${JSON.stringify(reply?.error)}`;
  });
});

test.each(['gone', 'another disk', 'looked at'] as const)(
  'an orderly close with a LUN that is %s has the other one written back',
  async (what) => {
    await eachSeed(SEEDS, async (random) => {
      const world = new World({ random, luns: 2, disk: { writeCache: 'volatile' } });
      await world.start();
      const user = new CellUser(world, 0);
      const neighbour = new CellUser(world, 1);
      await user.done(user.write(0, 1));
      await harm(world, what);
      neighbour.ask(0);
      await world.pass(random.between(100, 5000));
      const pending = user.write(1, 1);
      world.exporter.writeBack.set(0, async () => {
        const written = [user.write(2, 1), user.write(3, 1)];
        await asksDone(world, written);
        await asksDone(world, [user.flush()]);
      });
      await world.until(world.stack.close(), 200_000);
      const lost = [0, 1, 2, 3].filter((cell) => valueOnDisk(world, cell) !== 1);
      const unflushedBytes = world.disks[0]?.unflushedBytes;
      if (lost.length > 0) return `cells ${lost} are not on the disk (${pending.reply?.error})`;
      return unflushedBytes === 0 ? null : `${unflushedBytes} bytes are only in its cache`;
    });
  },
);

async function harm(world: World, what: 'gone' | 'another disk' | 'looked at'): Promise<void> {
  const target = world.node.targets.get(TARGET_NAME);
  expect(target).toBeDefined();
  if (what === 'gone') world.node.setLun(TARGET_NAME, 1, null);
  if (what === 'another disk' && world.disks[1]) {
    const { TargetDisk } = await import('../../src/target/disk.js');
    target?.luns.set(1, TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'OTHER' }));
  }
  if (what === 'looked at') {
    world.node.raiseAttention(TARGET_NAME, 1, { asc: 0x2a, ascq: 0x09 });
    let isTold = false;
    world.commands.add(({ lun }) => {
      if (lun !== 1) return undefined;
      if (isTold) return { delayMs: 3000 };
      isTold = true;
      return undefined;
    });
  }
}

/** As the kernel waits for its requests: within the time that others let pass. */
async function asksDone(
  world: World,
  asked: readonly { readonly reply: unknown }[],
): Promise<void> {
  while (asked.some(({ reply }) => reply === null)) {
    await new Promise<void>((resolve) => {
      world.clock.at(world.nowMs + 10, resolve);
    });
  }
}
