import { expect, test } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { CellUser, isUntouched } from './cell-user.js';
import { tellUntilKnown } from './disk-exchange.js';
import { eachSeed } from './each-seed.js';
import type { Seeded } from './seeded.js';
import { TARGET_NAME, World } from './world.js';

const SEEDS = 20;
const EIO = 5;
const POWER_ON = { asc: 0x29, ascq: 0x00 };
const MODE_CHANGED = { asc: 0x2a, ascq: 0x01 };
const WRITES: readonly number[] = [0x2a, 0x8a];
/** TEST UNIT READY, READ CAPACITY(10) and (16), as the control socket sends them. */
const QUESTIONS = [
  { cdb: [0, 0, 0, 0, 0, 0], length: 0 },
  { cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], length: 8 },
  { cdb: [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], length: 32 },
] as const;

/** Asks until the answer is GOOD, as a person's command does. */
async function question(world: World, random: Seeded): Promise<void> {
  const { cdb, length } = random.pick(QUESTIONS);
  const direction = length > 0 ? ('read' as const) : ('none' as const);
  const request = { lun: 0, cdb: Buffer.from(cdb), direction, length };
  for (let status = -1; status !== 0; ) {
    ({ status } = await world.until(world.stack.handle.execute(request), 60_000));
  }
}

function putDisk(world: World, disk: TargetDisk): void {
  const target = world.node.targets.get(TARGET_NAME);
  expect(target).toBeDefined();
  target?.luns.set(0, disk);
}

test('a power loss that is reported to a control command fails the next flush', async () => {
  await eachSeed(SEEDS, async (random) => {
    const session = { retainWrites: 'never' } as const;
    const world = new World({ random, session, disk: { writeCache: 'volatile' } });
    await world.start();
    const user = new CellUser(world);
    await user.done(user.write(0, 1));
    world.disk.powerLoss();
    world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
    await question(world, random);
    await world.pass(random.spread(1, 2000));
    const { error } = await user.done(user.flush());
    await world.end({ force: true });
    return error === EIO ? null : `the flush ended with ${error}`;
  });
});

test('a write after a control command that reports another disk does not reach that disk', async () => {
  await eachSeed(SEEDS, async (random) => {
    const world = new World({ random, session: { removalLatencySeconds: 5 } });
    await world.start();
    const other = TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'OTHER' });
    putDisk(world, other);
    await question(world, random);
    const user = new CellUser(world);
    user.write(0, 1);
    await world.pass(10_000);
    await world.end({ force: true });
    return isUntouched(other) ? null : 'it did';
  });
});

test('a write that waits for the depth does not reach another disk that was reported before', async () => {
  await eachSeed(SEEDS, async (random) => {
    const queueDepthMax = random.pick([1, 2, 4]);
    const world = new World({ random, session: { queueDepthMax, removalLatencySeconds: 5 } });
    world.network.latencyMs = random.spread(0.1, 20);
    await world.start();
    const other = TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'OTHER' });
    other.announcesChanges = false;
    const user = new CellUser(world);
    putDisk(world, other);
    tellUntilKnown(world, 0);
    for (let cell = 0; cell < 4 * queueDepthMax; cell += 1) user.write(cell, 1);
    await world.pass(10_000);
    await world.end({ force: true });
    return isUntouched(other) ? null : 'it did';
  });
});

test('a write that meets the report of another disk during a probe is not sent to that disk', async () => {
  await eachSeed(3 * SEEDS, async (random) => {
    const world = new World({ random, session: { removalLatencySeconds: 5 } });
    const latencyMs = random.spread(0.1, 20);
    world.network.latencyMs = latencyMs;
    await world.start();
    const other = TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'OTHER' });
    other.announcesChanges = false;
    const exchangeAt = random.whole(4, 10);
    const lateMs = 2 * latencyMs * (1 + exchangeAt + random.between(0, 3));
    let questions = 0;
    let isLate = false;
    world.commands.add(({ opcode, lba }) => {
      if (!isLate && WRITES.includes(opcode)) {
        isLate = true;
        world.clock.at(world.nowMs + latencyMs, () => {
          world.node.raiseAttention(TARGET_NAME, 0, MODE_CHANGED);
        });
        return { delayMs: lateMs, startsLate: true };
      }
      if (lba !== null && lba > 0) return undefined;
      questions += 1;
      if (questions === exchangeAt + 1) {
        world.clock.at(world.nowMs, () => {
          putDisk(world, other);
          tellUntilKnown(world, 0);
        });
      }
      return undefined;
    });
    const user = new CellUser(world);
    user.write(8, 1);
    await world.pass(2.5 * latencyMs);
    user.ask(9);
    await world.pass(10_000);
    await world.end({ force: true });
    return isUntouched(other) ? null : `exchanged at question ${exchangeAt}`;
  });
});
