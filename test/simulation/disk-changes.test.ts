import { expect, test } from 'vitest';
import { COMMAND, type ModelReply, type ModelRequest } from './model-client.js';
import { Seeded } from './seeded.js';
import { TARGET_NAME, World } from './world.js';

const MIB = 1 << 20;
const READ: ModelRequest = { command: COMMAND.read, flags: 0, offset: 0, length: 4096 };
/** Bus, target or LU reset function occurred (SPC-4 annex of additional sense codes). */
const WAS_RESET = { asc: 0x29, ascq: 0x03 };
const POWER_ON = { asc: 0x29, ascq: 0x00 };
const READ_CAPACITY_16 = 0x9e;

async function newWorld(): Promise<World> {
  const world = new World({ random: new Seeded(1), disk: { sizeBytes: MIB } });
  await world.start();
  return world;
}

async function end(world: World): Promise<void> {
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
}

async function answer(world: World, request: ModelRequest): Promise<ModelReply> {
  const client = [...world.exporter.clients][0] ?? world.newClient();
  const reply = new Promise<ModelReply>((resolve) => client.send(request, resolve));
  return world.until(reply, 10_000);
}

test('the growth of an idle disk that reports nothing is detected within 30 s', async () => {
  const world = await newWorld();
  world.disk.announcesChanges = false;
  await world.pass(35_000);
  world.disk.resize(2 * MIB);
  await world.pass(30_500);
  expect(world.exporter.sizeBytes).toBe(2 * MIB);
  const resized = world.events.filter(({ event }) => event === 'deviceResized');
  expect(resized).toMatchObject([{ sizeBytes: 2 * MIB }]);
  const end16 = { ...READ, offset: 2 * MIB - 4096 };
  expect((await answer(world, end16)).error).toBe(0);
  await end(world);
});

test('the growth of an idle disk that is reported to the first command is detected', async () => {
  const world = await newWorld();
  world.disk.resize(2 * MIB);
  await world.pass(30_500);
  expect(world.exporter.sizeBytes).toBe(2 * MIB);
  await end(world);
});

test('the size is polled with one command every 30 s, and not during an outage', async () => {
  const world = await newWorld();
  const { stats } = world.node;
  const before = stats.commandCount(READ_CAPACITY_16);
  await world.pass(300_500);
  expect(stats.commandCount(READ_CAPACITY_16) - before).toBe(10);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(45_000);
  expect(stats.commandCount(READ_CAPACITY_16) - before).toBe(10);
  world.network.become('up');
  await end(world);
});

test('a disk that does not answer the poll of its size is polled less and less', async () => {
  const world = await newWorld();
  let asked = 0;
  world.node.faults.onCommand = ({ opcode }) => {
    if (opcode !== READ_CAPACITY_16) return undefined;
    asked += 1;
    return 'ignore';
  };
  await world.pass(3600_000);
  // Each answer is waited for 60 s: every 90 s would have been 40 times.
  expect(asked).toBeGreaterThan(4);
  expect(asked).toBeLessThan(9);
  world.node.faults.onCommand = undefined;
  await world.pass(2000_000);
  world.disk.announcesChanges = false;
  world.disk.resize(2 * MIB);
  await world.pass(30_500);
  expect(world.exporter.sizeBytes).toBe(2 * MIB);
  await end(world);
});

test('a power loss that is reported to the poll of the size fails the next flush', async () => {
  const world = new World({
    random: new Seeded(1),
    session: { retainWrites: 'never' },
    disk: { sizeBytes: MIB, writeCache: 'volatile' },
  });
  await world.start();
  const data = Buffer.alloc(4096, 1);
  const write: ModelRequest = { command: COMMAND.write, flags: 0, offset: 0, length: 4096, data };
  expect((await answer(world, write)).error).toBe(0);
  world.disk.powerLoss();
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
  await world.pass(31_000);
  const flush: ModelRequest = { command: COMMAND.flush, flags: 0, offset: 0, length: 0 };
  expect((await answer(world, flush)).error).toBe(5);
  expect((await answer(world, flush)).error).toBe(0);
  await end(world);
});

test.each([
  ['a reset', WAS_RESET],
  ['a power-on', POWER_ON],
])(
  '%s may change mode pages: the write cache and write protection are read again',
  async (_name, attention) => {
    const world = await newWorld();
    world.disk.announcesChanges = false;
    world.disk.writeCacheEnabled = true;
    world.disk.readOnly = true;
    expect((await answer(world, READ)).error).toBe(0);
    expect(world.unit.facts).toMatchObject({ writeCacheEnabled: false, readOnly: false });
    world.node.raiseAttention(TARGET_NAME, 0, attention);
    expect((await answer(world, READ)).error).toBe(0);
    expect(world.unit.facts).toMatchObject({ writeCacheEnabled: true, readOnly: true });
    await end(world);
  },
);
