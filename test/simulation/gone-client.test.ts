import { expect, test } from 'vitest';
import type { CommandFault } from '../../src/target/faults.js';
import { answerTo, ask, block, endWell, FLUSH, newWorld, read, write } from './asked.js';
import type { World } from './world.js';

const WRITE10 = 0x2a;

/** The first write of the world meets `fault`. */
function firstWriteMeets(world: World, fault: CommandFault): { writes: number } {
  const seen = { writes: 0 };
  world.node.faults.onCommand = ({ opcode }) => {
    if (opcode !== WRITE10) return undefined;
    seen.writes += 1;
    return seen.writes === 1 ? fault : undefined;
  };
  return seen;
}

test('a write of a client that disconnected does not overwrite newer data after an outage', async () => {
  const world = await newWorld();
  firstWriteMeets(world, 'ignore');
  const [gone, other] = [world.newClient(), world.newClient()];
  ask(world, gone, write(0xaa));
  await world.pass(100);
  gone.close();
  const newer = ask(world, other, write(0xbb));
  await world.pass(1000);
  // It is not acknowledged while the target still has the older one.
  expect(newer.reply).toBeNull();
  expect(world.unit.queue.heldRequests).toBe(1);
  world.network.current?.cut();
  await world.pass(10_000);
  expect(newer.reply?.error).toBe(0);
  expect((await answerTo(world, other, FLUSH)).error).toBe(0);
  await world.pass(10_000);
  expect((await answerTo(world, other, read())).data.equals(block(0xbb))).toBe(true);
  expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
  await endWell(world);
});

test('a write that was answered BUSY is not repeated after its client disconnected', async () => {
  const world = await newWorld();
  const seen = firstWriteMeets(world, { status: 0x08 });
  const [gone, other] = [world.newClient(), world.newClient()];
  ask(world, gone, write(0xaa));
  await world.when(() => seen.writes === 1, 1000);
  await world.pass(2);
  gone.close();
  expect((await answerTo(world, other, write(0xbb))).error).toBe(0);
  expect((await answerTo(world, other, FLUSH)).error).toBe(0);
  await world.pass(60_000);
  expect(seen.writes).toBe(2);
  expect((await answerTo(world, other, read())).data.equals(block(0xbb))).toBe(true);
  expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
  await endWell(world);
});

test('a write that is slow at the target does not overwrite what the next client has read', async () => {
  const world = await newWorld();
  firstWriteMeets(world, { delayMs: 3000 });
  const [gone, other] = [world.newClient(), world.newClient()];
  ask(world, gone, write(0xaa));
  await world.pass(100);
  gone.close();
  // What lies elsewhere does not wait.
  expect((await answerTo(world, other, write(0xcc, 8192))).error).toBe(0);
  expect(world.unit.queue.heldRequests).toBe(0);
  expect((await answerTo(world, other, write(0xbb))).error).toBe(0);
  expect((await answerTo(world, other, FLUSH)).error).toBe(0);
  await world.pass(10_000);
  expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
  await endWell(world);
});
