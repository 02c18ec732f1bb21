/** LUNs of one session: one that hangs, vanishes or takes one command at a time, beside others. */
import { expect, test } from 'vitest';
import { ask, block, EIO, endWell as end, newWorld, read, write } from './asked.js';
import { TARGET_NAME } from './world.js';

const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };
const INQUIRY_CHANGED = { asc: 0x3f, ascq: 0x03 };
const INQUIRY = 0x12;
const MIB = 1 << 20;

test('a disk is read at once while another one of its session hangs with all commands it may have', async () => {
  const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB } });
  world.node.faults.onCommand = ({ lun }) => (lun === 1 ? 'ignore' : undefined);
  const [healthy, stuck] = [world.newClient(0), world.newClient(1)];
  for (let index = 0; index < 200; index += 1) ask(world, stuck, read(0));
  await world.pass(100);
  const asked = ask(world, healthy, read(0));
  const sentAtMs = world.nowMs;
  await world.when(() => asked.reply !== null, 1000);
  expect(asked.reply?.error).toBe(0);
  expect(asked.atMs - sentAtMs).toBeLessThan(100);
  world.node.faults.onCommand = undefined;
  await end(world);
});

test('a disk is not removed because its probe waits while another one hangs', async () => {
  const world = await newWorld({
    luns: 2,
    disk: { sizeBytes: MIB },
    // The target's window is as large as what one LUN may have in flight.
    session: { queueDepthMax: 32, removalLatencySeconds: 5 },
  });
  world.node.setCommandWindow(32);
  world.node.faults.onCommand = ({ lun }) => (lun === 1 ? 'ignore' : undefined);
  const [healthy, stuck] = [world.newClient(0), world.newClient(1)];
  for (let index = 0; index < 200; index += 1) ask(world, stuck, read(0));
  await world.pass(100);
  world.node.raiseAttention(TARGET_NAME, 1, LUNS_CHANGED);
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  const asked = ask(world, healthy, read(0));
  await world.when(() => asked.reply !== null, 30_000);
  expect(asked.reply?.error).toBe(0);
  const removed = world.events.filter(({ event }) => event === 'deviceRemoved');
  expect(removed.filter((event) => 'lun' in event && event.lun === 0)).toEqual([]);
  world.node.faults.onCommand = undefined;
  await end(world);
});

test('a disk that answers is not removed because its identification takes longer than the removal latency', async () => {
  const world = await newWorld({
    luns: 2,
    disk: { sizeBytes: MIB },
    session: { removalLatencySeconds: 1 },
  });
  world.network.latencyMs = 100;
  const [healthy, gone] = [world.newClient(0), world.newClient(1)];
  world.node.setLun(TARGET_NAME, 1, null);
  ask(world, gone, read(0));
  await world.when(() => world.stack.luns[0]?.state === 'checking', 2000);
  const beganAtMs = world.nowMs;
  const asked = ask(world, healthy, read(0));
  await world.when(() => asked.reply !== null, 30_000);
  expect(asked.reply?.error).toBe(0);
  expect(asked.atMs - beganAtMs).toBeGreaterThan(1000);
  const removed = world.events.filter(({ event }) => event === 'deviceRemoved');
  expect(removed.map((event) => 'lun' in event && event.lun)).toEqual([1]);
  await end(world);
});

test('a disk that reports a change to every probe is removed in the end', async () => {
  const world = await newWorld({
    disk: { sizeBytes: MIB },
    session: { removalLatencySeconds: 10, reconnectIntervalSeconds: 1 },
  });
  const client = world.newClient();
  world.commands.add(({ opcode }) => {
    if (opcode === INQUIRY) world.node.raiseAttention(TARGET_NAME, 0, INQUIRY_CHANGED);
    return undefined;
  });
  world.node.raiseAttention(TARGET_NAME, 0, INQUIRY_CHANGED);
  const asked = ask(world, client, read(0));
  await world.when(() => asked.reply !== null, 60_000);
  expect(asked.reply?.error).toBe(EIO);
  expect(world.stack.luns[0]?.state).toBe('removed');
  await end(world);
});

test('a disk is written while the held writes of another one fill heldBytesMax', async () => {
  const heldBytesMax = 4 * MIB;
  const world = await newWorld({
    luns: 2,
    disk: { sizeBytes: 16 * MIB },
    session: { heldBytesMax, removalLatencySeconds: Number.POSITIVE_INFINITY },
  });
  const [healthy, gone] = [world.newClient(0), world.newClient(1)];
  world.node.setLun(TARGET_NAME, 1, null);
  for (let index = 0; index < 2 * (heldBytesMax / MIB); index += 1) {
    ask(world, gone, write(1, index * MIB, MIB));
  }
  await world.pass(5000);
  const asked = ask(world, healthy, write(7));
  const sentAtMs = world.nowMs;
  await world.when(() => asked.reply !== null, 20_000);
  expect(asked.reply?.error).toBe(0);
  expect(asked.atMs - sentAtMs).toBeLessThan(1000);
  expect(world.disk.read(0, 4096).equals(block(7))).toBe(true);
  await end(world);
});

test('a disk without command queuing gets one command at a time, control commands included', async () => {
  const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB, commandQueuing: false } });
  let [running, most] = [0, 0];
  world.node.faults.onCommand = ({ lun }) => {
    if (lun !== 0) return undefined;
    running += 1;
    most = Math.max(most, running);
    world.clock.at(world.nowMs + 20, () => {
      running -= 1;
    });
    return { delayMs: 20 };
  };
  const client = world.newClient(0);
  const asked = Array.from({ length: 20 }, (_, index) => ask(world, client, read(index * 4096)));
  world.stack.probeAgain();
  await world.when(() => asked.every(({ reply }) => reply !== null), 60_000);
  expect(asked.map(({ reply }) => reply?.error)).toEqual(Array(20).fill(0));
  expect(most).toBe(1);
  world.node.faults.onCommand = undefined;
  await end(world);
});
