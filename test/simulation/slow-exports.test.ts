/** Exporters that take their time, or refuse: what the kernel's driver and a full disk may do. */
import { expect, test } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import type { LogicalUnit } from '../../src/bridge/logical-unit.js';
import type { LunState } from '../../src/lun/lun-state.js';
import { TargetDisk } from '../../src/target/disk.js';
import { Seeded } from './seeded.js';
import { TARGET_NAME, World } from './world.js';

async function newWorld(removalLatencySeconds: number, luns = 1) {
  const session = { removalLatencySeconds, reconnectIntervalSeconds: 1 };
  const world = new World({ random: new Seeded(1), session, luns });
  await world.start();
  const events: string[] = [];
  world.onEvent = (event) => {
    events.push(event.event === 'sessionState' ? `${event.from} → ${event.to}` : event.event);
  };
  const state = (): LunState | undefined => world.stack.luns[0]?.state;
  const wait = (ms: number) =>
    new Promise<void>((resolve) => {
      world.clock.at(world.nowMs + ms, resolve);
    });
  return { world, events, state, wait };
}

async function end(world: World): Promise<void> {
  await world.until(world.stack.close({ force: true }), 60_000);
  await world.pass(4000);
  expect(world.clock.pending).toBe(0);
  await world.end();
  expect(world.faults).toEqual([]);
}

test('a resize that the exporter refuses is reported, and the LUN goes on serving', async () => {
  const { world, events, state } = await newWorld(60);
  let refusals = 0;
  world.exporter.resized = async () => {
    refusals += 1;
    throw new UsageError('the kernel refuses it');
  };
  world.disk.resize(world.disk.sizeBytes + 4096);
  world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x2a, ascq: 0x09 });
  await world.pass(90_000);
  expect([refusals, state(), world.unit.queue.mode]).toEqual([1, 'serving', 'open']);
  expect(events).toEqual(['warning']);
  // The next probe tries again.
  world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x2a, ascq: 0x09 });
  await world.pass(90_000);
  expect([refusals, state()]).toEqual([2, 'serving']);
  await end(world);
});

test('a LUN that is removed while its record is written is exported again', async () => {
  const { world, state, wait } = await newWorld(5);
  Object.assign(world.exporter, { keepFacts: () => wait(3000) });
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(3500);
  world.disk.resize(world.disk.sizeBytes + 4096);
  world.network.become('up');
  await world.pass(2500);
  expect([state(), world.exporter.isExported]).toEqual(['removed', false]);
  let commands = 0;
  world.commands.add(() => {
    commands += 1;
    return undefined;
  });
  await world.pass(30_000);
  expect([state(), world.exporter.isExported]).toEqual(['serving', true]);
  expect(commands).toBeLessThan(200);
  await end(world);
});

test('a session counts as removed although an export fails late in its outage', async () => {
  const { world, events, state, wait } = await newWorld(2);
  const add = world.exporter.add.bind(world.exporter);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(3000);
  expect(state()).toBe('removed');
  world.exporter.add = async () => {
    await wait(10_000);
    throw new UsageError('somebody holds the device');
  };
  world.network.become('up');
  await world.when(() => state() === 'returning', 10_000);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(20_000);
  expect([state(), world.stack.handle.state]).toEqual(['removed', 'removed']);
  expect(events.filter((event) => event === 'reconnecting → removed')).toHaveLength(2);
  world.exporter.add = (unit: LogicalUnit) => add(unit);
  world.network.become('up');
  await world.pass(20_000);
  expect(state()).toBe('serving');
  await end(world);
});

test('an export that waits for its turn is not made for the disk that came after it', async () => {
  const { world, state, wait } = await newWorld(20, 2);
  const add = world.exporter.add.bind(world.exporter);
  const [disk, neighbour] = world.disks;
  const decoy = TargetDisk.ram({ sizeBytes: disk?.sizeBytes ?? 0, serial: 'OTHER' });
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(21_000);
  const adds: number[] = [];
  world.exporter.add = async (unit) => {
    adds.push(unit.lun);
    if (adds.length === 1) await wait(10_000);
    await add(unit);
  };
  // One of the two is being exported; the other one waits.
  world.network.become('up');
  await world.when(() => adds.length === 1, 10_000);
  const waiting = adds[0] === 0 ? 1 : 0;
  await world.when(() => world.stack.luns[waiting]?.state === 'returning', 5000);
  world.node.setLun(TARGET_NAME, waiting, decoy);
  world.network.current?.cut();
  await world.when(() => world.stack.luns[waiting]?.state === 'removed', 5000);
  world.node.setLun(TARGET_NAME, waiting, (waiting === 0 ? disk : neighbour) ?? decoy);
  await world.pass(60_000);
  expect(world.stack.luns.map((lun) => lun.state)).toEqual(['serving', 'serving']);
  expect([world.exporter.has(0), world.exporter.has(1)]).toEqual([true, true]);
  expect(adds).toHaveLength(2);
  expect(state()).toBe('serving');
  await end(world);
});
