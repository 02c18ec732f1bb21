/** Retained writes of a LUN that is removed, and which flushes report what the disk has lost. */
import { expect, test } from 'vitest';
import { answerTo, ask, block, EIO, endWell, FLUSH, newWorld, read, write } from './asked.js';
import { TARGET_NAME, type World } from './world.js';

const LATENCY_S = 5;
const OPTIONS = {
  disk: { writeCache: 'volatile' },
  session: { removalLatencySeconds: LATENCY_S },
} as const;
const POWER_ON = { asc: 0x29, ascq: 0x00 };
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };
const WRITE_10 = 0x2a;
const TEST_UNIT_READY = 0x00;

function losePower(world: World): void {
  world.disk.powerLoss();
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
}

async function isState(world: World, state: string): Promise<void> {
  expect(await world.when(() => world.stack.luns[0]?.state === state, 100_000)).toBe(true);
}

/** The LUN is out of reach until it is removed, and back; its target keeps its power. */
async function removedAndBack(world: World): Promise<void> {
  world.network.become('unreachable');
  world.network.current?.cut();
  await isState(world, 'removed');
  world.network.become('up');
  await isState(world, 'serving');
}

test('the next flush fails if a process was killed that knew of a power loss, and the LUN was removed before the next process wrote again what was lost', async () => {
  const world = await newWorld(OPTIONS);
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  const back = world.commands.add(({ opcode }) => (opcode === WRITE_10 ? 'ignore' : undefined));
  losePower(world);
  ask(world, client, read());
  await world.when(() => world.unit.retained?.replayReason === 'cacheLost', 10_000);
  world.kill();
  await world.takeOver();
  await isState(world, 'removed');
  back();
  await isState(world, 'serving');
  const next = world.newClient();
  expect((await answerTo(world, next, read())).data.equals(block(0))).toBe(true);
  expect((await answerTo(world, next, FLUSH)).error).toBe(EIO);
  expect((await answerTo(world, next, FLUSH)).error).toBe(0);
  await endWell(world);
});

test('the next flush of each client fails if a LUN that was removed loses unflushed writes once it is back, though these clients wrote nothing', async () => {
  const world = await newWorld(OPTIONS);
  expect((await answerTo(world, world.newClient(), write(1))).error).toBe(0);
  await removedAndBack(world);
  const [one, other] = [world.newClient(), world.newClient()];
  losePower(world);
  expect((await answerTo(world, one, read())).data.equals(block(0))).toBe(true);
  for (const client of [one, other]) {
    expect((await answerTo(world, client, FLUSH)).error).toBe(EIO);
    expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  }
  await endWell(world);
});

test('no flush fails after a removal if what was lost was written since, and is written again', async () => {
  const world = await newWorld(OPTIONS);
  const before = world.newClient();
  expect((await answerTo(world, before, write(1))).error).toBe(0);
  expect((await answerTo(world, before, FLUSH)).error).toBe(0);
  await removedAndBack(world);
  const client = world.newClient();
  expect((await answerTo(world, client, write(2, 4096))).error).toBe(0);
  losePower(world);
  expect((await answerTo(world, client, read(4096))).data.equals(block(2))).toBe(true);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
  await endWell(world);
});

test('a write that its target ended after the removal of the LUN is not written again over newer data when the LUN is back', async () => {
  const world = await newWorld(OPTIONS);
  const back = world.commands.add(({ opcode }) => {
    if (opcode === TEST_UNIT_READY) return 'ignore';
    return opcode === WRITE_10 ? { delayMs: 2000 * LATENCY_S } : undefined;
  });
  const client = world.newClient();
  ask(world, client, write(1));
  await world.pass(100);
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  ask(world, client, read(4096));
  await isState(world, 'removed');
  await world.when(() => world.disk.read(0, 4096).equals(block(1)), 10_000);
  await world.pass(1000);
  back();
  // Another host uses the disk now.
  world.disk.write(0, block(2));
  world.network.current?.cut();
  await isState(world, 'serving');
  expect((await answerTo(world, world.newClient(), read())).data.equals(block(2))).toBe(true);
  await endWell(world);
});
