import { expect, test } from 'vitest';
import { answerTo, ask, block, endWell, FLUSH, newWorld, read, write } from './asked.js';
import { BlockUser, endOfUse } from './block-user.js';
import { eachSeed } from './each-seed.js';
import { FLAG } from './model-client.js';
import type { Seeded } from './seeded.js';
import { destaged } from './strikes-target.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = Number(process.env['RETAINED_SEEDS'] ?? 12);
/** Seeds take a second each on a machine that is busy. */
const TIMEOUT = { timeout: 600_000 };
const CUTS = 3;
const REQUESTS_OF_CUT = 250;
const READ_10 = 0x28;
const WRITE_10 = 0x2a;
const SYNCHRONIZE_CACHE_10 = 0x35;
const POWER_ON = { asc: 0x29, ascq: 0x00 };

type Cut = (world: World, random: Seeded, user: BlockUser) => void | Promise<void>;

/** The target loses its power and the links with it, and is back after a while. */
const targetRestarts: Cut = (world, random) => {
  world.network.become('refused');
  for (const link of [...world.network.links]) link.cut();
  world.node.restart();
  world.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
  world.clock.at(world.nowMs + random.spread(1, 5000), () => world.network.become('up'));
};

/** The disk alone loses its power; the session lives, and the next command has the attention. */
const diskLosesPower: Cut = (world, random) => {
  for (const session of world.node.sessions) session.endTasks((task) => task.lun === 0);
  world.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
};

/** The link ends over and over again, as the replay goes on. */
const replayIsInterrupted: Cut = (world, random, user) => {
  targetRestarts(world, random, user);
  for (let times = random.whole(1, 4); times > 0; times -= 1) {
    world.clock.at(world.nowMs + random.spread(2000, 20_000), () => {
      for (const link of [...world.network.links]) link.cut();
      if (random.chance(0.5)) world.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
      world.node.restart();
    });
  }
};

async function someRequests(world: World, user: BlockUser, random: Seeded): Promise<void> {
  for (let left = REQUESTS_OF_CUT; left > 0; left -= 1) {
    user.ask();
    if (random.chance(0.3)) await world.pass(random.spread(0.1, 20));
  }
}

/** A flush covers what was written when it came, or when it ends, which is after other answers. */
function flushesAreSlow(world: World, random: Seeded): void {
  world.node.faults.onCommand = ({ opcode }) =>
    opcode === SYNCHRONIZE_CACHE_10
      ? { delayMs: random.spread(1, 500), runsAtOnce: random.chance(0.5) }
      : undefined;
}

async function story(random: Seeded, cuts: readonly Cut[]): Promise<string | null> {
  const world = new World({
    random,
    session: {
      removalLatencySeconds: 600,
      retainedBytesMax: random.pick([16 << 10, 64 << 10, 1 << 20]),
      queueDepthMax: random.pick([1, 8, 32]),
    },
    disk: {
      sizeBytes: 256 << 10,
      writeCache: 'volatile',
      limits: random.chance(0.5) ? { transferBlocksMax: 8 } : {},
    },
  });
  if (random.chance(0.5)) flushesAreSlow(world, random);
  await world.start();
  const user = new BlockUser(world, random);
  for (let cut = 0; cut < CUTS; cut += 1) {
    await someRequests(world, user, random);
    // The cut meets requests in the middle, parts of which are done.
    for (let more = random.whole(0, 16); more > 0; more -= 1) user.ask();
    await world.pass(random.spread(0.1, 20));
    await random.pick([...cuts])(world, random, user);
  }
  await someRequests(world, user, random);
  if (!(await world.when(() => user.isQuiet, 900_000))) user.faults.push('requests have no reply');
  return await endOfUse(world, user);
}

test.each([
  ['the target loses its power', [targetRestarts]],
  ['the disk loses its power and the session goes on', [diskLosesPower]],
  ['a replay is interrupted', [replayIsInterrupted]],
  ['any of that happens', [targetRestarts, diskLosesPower, replayIsInterrupted]],
] as const)(
  'no acknowledged write is lost, no read is stale and no flush fails if %s',
  TIMEOUT,
  async (_what, cuts) => {
    await eachSeed(SEEDS, (random) => story(random, cuts));
  },
);

test(
  'acknowledged writes survive a target that loses its power while our process is killed',
  TIMEOUT,
  async () => {
    await eachSeed(SEEDS, async (random) => {
      const world = new World({
        random,
        session: { removalLatencySeconds: 600, retainedBytesMax: random.pick([16 << 10, 1 << 20]) },
        disk: { sizeBytes: 256 << 10, writeCache: 'volatile' },
      });
      await world.start();
      const user = new BlockUser(world, random);
      for (let cut = 0; cut < CUTS; cut += 1) {
        await someRequests(world, user, random);
        // What is under way at a kill the kernel would send again.
        await world.when(() => user.isQuiet, 900_000);
        world.kill();
        world.node.restart();
        world.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
        await world.takeOver();
        // Killed again before, in or after the replay.
        if (random.chance(0.5)) {
          await world.pass(random.spread(0.1, 200));
          world.kill();
          world.disk.powerLoss(destaged(random.whole(0, 1 << 20)));
          await world.takeOver();
        }
        await user.serverReplaced();
      }
      user.readAll();
      user.flush();
      if (!(await world.when(() => user.isQuiet, 900_000)))
        user.faults.push('requests have no reply');
      world.disk.powerLoss(() => false);
      const medium = world.disk.read(0, world.disk.sizeBytes);
      if (!medium.equals(user.content)) user.faults.push('the medium is not what was written');
      await world.end({ force: true });
      return [...user.faults, ...world.faults].slice(0, 3).join('; ') || null;
    });
  },
);

test('a disk without a volatile cache is not written again after an outage', async () => {
  await eachSeed(5, async (random) => {
    const world = new World({ random, disk: { sizeBytes: 256 << 10, writeCache: 'none' } });
    await world.start();
    const user = new BlockUser(world, random);
    await someRequests(world, user, random);
    targetRestarts(world, random, user);
    await world.when(() => user.isQuiet, 60_000);
    expect(world.events.filter(({ event }) => event === 'writesReplayed')).toEqual([]);
    await world.end({ force: true });
    return user.faults[0] ?? null;
  });
});

test('a write larger than retainedBytesMax that came during one with FUA is done, and so are later ones', async () => {
  const world = await newWorld({
    session: { retainedBytesMax: 16 << 10 },
    disk: { writeCache: 'volatile' },
  });
  const client = world.newClient();
  const stable = ask(world, client, { ...write(1), flags: FLAG.fua });
  const large = ask(world, client, write(2, 32 << 10, 32 << 10));
  const later = ask(world, client, write(3, 4096));
  await world.when(() => later.reply !== null, 30_000);
  expect([stable, large, later].map(({ reply }) => reply?.error)).toEqual([0, 0, 0]);
  await endWell(world);
});

test('writes that the disk refuses give their room back', async () => {
  const world = await newWorld({
    session: { retainedBytesMax: 16 << 10 },
    disk: { writeCache: 'volatile' },
  });
  const client = world.newClient();
  for (let refused = 0; refused < 16; refused += 1) {
    const { error } = await answerTo(world, client, write(1, world.disk.sizeBytes, 4096));
    expect(error).not.toBe(0);
  }
  world.disk.readOnly = true;
  for (let refused = 0; refused < 16; refused += 1) {
    expect((await answerTo(world, client, write(1))).error).not.toBe(0);
  }
  world.disk.readOnly = false;
  await answerTo(world, client, read());
  await world.pass(1000);
  expect((await answerTo(world, client, write(2))).error).toBe(0);
  await endWell(world);
});

test('no timer and no slab stays if a write is answered between the end of its disk and the logout', async () => {
  const world = await newWorld({ disk: { writeCache: 'volatile' } });
  world.network.latencyMs = 20;
  ask(world, world.newClient(), write(1));
  await world.pass(30);
  await endWell(world);
});

test('writes that have to be written again wait while the disk is ready for all but writes', async () => {
  const world = await newWorld({ disk: { writeCache: 'volatile' } });
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  world.disk.powerLoss();
  let writes = 0;
  const back = world.commands.add(({ opcode }) => {
    if (opcode !== WRITE_10) return undefined;
    writes += 1;
    return { sense: { key: 0x02, asc: 0x04, ascq: 0x0a } };
  });
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
  const held = ask(world, client, read());
  await world.pass(20_000);
  expect(held.reply).toBeNull();
  expect(writes).toBeLessThan(20);
  expect(world.stack.luns[0]?.state).toBe('away');
  back();
  await world.when(() => held.reply !== null, 10_000);
  expect(held.reply?.data.equals(block(1))).toBe(true);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  await endWell(world);
});

test('a write of several commands is sent again as a whole if the disk lost the first of them', async () => {
  const bytes = 12 * 4096;
  const world = await newWorld({
    disk: { writeCache: 'volatile', limits: { transferBlocksMax: 8 } },
  });
  const client = world.newClient();
  const whole = ask(world, client, write(1, 0, bytes));
  const met = ask(world, client, read(bytes));
  // The read gets the unit attention; the target runs the commands of the write that come after it.
  const back = world.commands.add(({ opcode }) => {
    if (opcode !== READ_10) return undefined;
    back();
    world.disk.powerLoss();
    return { sense: { key: 0x06, ...POWER_ON } };
  });
  await world.when(() => whole.reply !== null && met.reply !== null, 10_000);
  expect([whole.reply?.error, met.reply?.error]).toEqual([0, 0]);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  world.disk.powerLoss();
  expect(world.disk.read(0, bytes).equals(block(1, bytes))).toBe(true);
  await endWell(world);
});
