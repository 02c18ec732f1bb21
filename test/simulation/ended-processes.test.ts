import { test } from 'vitest';
import { CellUser, valueOnDisk } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = 20;
const EIO = 5;

test('a write in the socket of a process that ended does not overwrite a newer one', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({ random });
    world.network.latencyMs = random.spread(0.1, 10);
    await world.start();
    const user = new CellUser(world);
    await user.done(user.write(0, 1));
    world.network.become('blackhole');
    user.write(0, 2, random.whole(1, 8));
    await world.pass(random.spread(10, 3000));
    world.kill();
    world.network.become('up');
    await world.until(world.startAnew(), 120_000);
    const next = new CellUser(world);
    await next.done(next.write(0, 3));
    await next.done(next.flush());
    await world.pass(120_000);
    const value = valueOnDisk(world, 0);
    await world.end({ force: true });
    return value === 3 ? null : `the disk holds ${value}`;
  });
});

/** `told`: the process had heard of the loss; `untold`: the next one is the first that hears. */
test.each(['told', 'untold'] as const)(
  'a cache that was lost before a kill fails the first flush after it: %s',
  async (what) => {
    await eachSeed(SEEDS, async (random) => {
      const session = { retainWrites: 'never' } as const;
      const world = new World({ random, session, disk: { writeCache: 'volatile' } });
      await world.start();
      const user = new CellUser(world);
      await user.done(user.write(0, 1));
      if (what === 'told') {
        world.disk.powerLoss();
        world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x29, ascq: 0x00 });
        await user.read(5);
        await world.pass(random.spread(1, 5000));
        world.kill();
      } else {
        world.kill();
        world.node.restart({ powerLoss: true });
      }
      await world.takeOver();
      await world.when(() => world.unit.queue.mode === 'open', 60_000);
      const next = new CellUser(world);
      const { error } = await next.done(next.flush());
      const second = await next.done(next.flush());
      await world.end({ force: true });
      if (error !== EIO) return `the flush ended with ${error}`;
      return second.error === 0 ? null : `the second flush ended with ${second.error}`;
    });
  },
);
