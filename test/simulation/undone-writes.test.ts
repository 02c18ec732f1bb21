import { test } from 'vitest';
import { CellUser, valueOnDisk } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { World } from './world.js';

const SEEDS = 20;
const WRITES: readonly number[] = [0x2a, 0x8a];
const WRITE_SAMES: readonly number[] = [0x41, 0x93];

test('a write whose data the target has not requested is not acknowledged', async () => {
  await eachSeed(SEEDS, async (random) => {
    const immediateData = random.chance(0.5);
    const world = new World({
      random,
      session: { initialR2T: true, immediateData, firstBurstLength: 4096 },
    });
    await world.start();
    let left = random.whole(1, 2);
    world.commands.add(({ opcode }) => {
      if (left === 0 || !WRITES.includes(opcode)) return undefined;
      left -= 1;
      return { undone: 'unasked' };
    });
    const user = new CellUser(world);
    const count = random.whole(2, 16);
    const { error } = await user.done(user.write(0, 1, count));
    const last = valueOnDisk(world, count - 1);
    await world.end({ force: true });
    return error === 0 && last !== 1 ? `acknowledged, and the disk holds ${last}` : null;
  });
});

test('a write of zeroes of which the disk has written none is not acknowledged', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({ random, disk: { thin: random.chance(0.5) } });
    await world.start();
    const user = new CellUser(world);
    const count = random.whole(1, 16);
    await user.done(user.write(0, 1, count));
    let left = random.whole(1, 2);
    world.commands.add(({ opcode }) => {
      if (left === 0 || !WRITE_SAMES.includes(opcode)) return undefined;
      left -= 1;
      return { undone: 'residual' };
    });
    const { error } = await user.done(user.zero(0, count));
    const last = valueOnDisk(world, count - 1);
    await world.end({ force: true });
    return error === 0 && last !== 0 ? `acknowledged, and the disk holds ${last}` : null;
  });
});
