import { test } from 'vitest';
import { CellUser, valueOnDisk } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = 20;
const INQUIRY = 0x12;
const WRITES: readonly number[] = [0x2a, 0x8a];

test('a disk that is not ready for 50 s, and then reports a unit attention, fails no request', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({ random, session: { removalLatencySeconds: 120 } });
    await world.start();
    const answer = random.pick([
      { status: 0x08 },
      { status: 0x28 },
      { sense: { key: 0x02, asc: 0x04, ascq: 0x01 } },
      { sense: { key: 0x02, asc: 0x04, ascq: 0x0a } },
    ] as const);
    const forMs = random.between(1000, 50_000);
    const remove = world.commands.add(({ opcode }) => (opcode === INQUIRY ? undefined : answer));
    const user = new CellUser(world);
    const asked = [user.write(0, 1), user.ask(5), user.flush()];
    await world.pass(forMs);
    remove();
    const attention = random.pick([
      { asc: 0x29, ascq: 0x00 },
      { asc: 0x2a, ascq: 0x06 },
      { asc: 0x3f, ascq: 0x03 },
    ]);
    world.node.raiseAttention(TARGET_NAME, 0, attention);
    const errors: number[] = [];
    for (const one of asked) errors.push((await user.done(one)).error);
    const isThere = valueOnDisk(world, 0) === 1;
    await world.end({ force: true });
    const isWrong = errors.some((error) => error !== 0) || !isThere;
    return isWrong ? `after ${(forMs / 1000).toFixed(1)} s: errnos ${errors}` : null;
  });
});

test('a write of which the disk takes nothing fails after some tries, and is reported', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({ random });
    world.network.latencyMs = random.spread(0.1, 10);
    await world.start();
    let writes = 0;
    world.commands.add(({ opcode }) => {
      if (!WRITES.includes(opcode)) return undefined;
      writes += 1;
      return { undone: 'residual' };
    });
    const user = new CellUser(world);
    const asked = user.write(0, 1, random.whole(1, 8));
    await world.when(() => asked.reply !== null || writes > 1000, 30_000);
    world.commands.clear();
    const isTold = world.events.some(({ event }) => event === 'ioError');
    const error = asked.reply?.error;
    await world.end({ force: true });
    if (error !== 5) return `${writes} tries, errno ${error}`;
    return isTold ? null : 'nobody is told';
  });
});
