/** A unit attention is reported to one request, and all requests of the disk have to know it. */
import { expect, test } from 'vitest';
import { requireDisks } from '../../src/lun/find-disks.js';
import { queryCapacity } from '../../src/session/scsi-queries.js';
import { TargetDisk } from '../../src/target/disk.js';
import { COMMAND, type ModelReply, type ModelRequest } from './model-client.js';
import { Seeded } from './seeded.js';
import { TARGET_NAME, World, type WorldOptions } from './world.js';

const SIZE_BYTES = 1 << 20;
const NOT_RETAINED = {
  disk: { sizeBytes: SIZE_BYTES, writeCache: 'volatile' },
  session: { retainWrites: 'never' },
} as const;
const POWER_ON = { asc: 0x29, ascq: 0x00 };
const INQUIRY_CHANGED = { asc: 0x3f, ascq: 0x03 };
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };
const INQUIRY = 0x12;
const MODE_SENSE_6 = 0x1a;
const WRITE: ModelRequest = {
  command: COMMAND.write,
  flags: 0,
  offset: 0,
  length: 4096,
  data: Buffer.alloc(4096, 0x5a),
};
const READ: ModelRequest = { command: COMMAND.read, flags: 0, offset: 8192, length: 4096 };
const FLUSH: ModelRequest = { command: COMMAND.flush, flags: 0, offset: 0, length: 0 };

async function newWorld(options: Omit<WorldOptions, 'random'> = {}): Promise<World> {
  const world = new World({ random: new Seeded(1), ...options });
  await world.start();
  return world;
}

function ask(world: World, request: ModelRequest): Promise<ModelReply> {
  const client = [...world.exporter.clients][0] ?? world.newClient();
  return new Promise((resolve) => client.send(request, resolve));
}

async function answer(world: World, request: ModelRequest): Promise<ModelReply> {
  return world.until(ask(world, request), 30_000);
}

/** READ CAPACITY of a person or a script, over the session of the disks. */
async function question(world: World): Promise<void> {
  const { handle } = world.stack;
  const session = { ...handle, execute: handle.execute.bind(handle) } as never;
  await world.until(queryCapacity(session, 0), 10_000);
}

function exchange(world: World, decoy: TargetDisk): void {
  [...world.node.targets.values()][0]!.luns.set(0, decoy);
}

function isUntouched(disk: TargetDisk): boolean {
  return !disk.extent(0, SIZE_BYTES).mapped && disk.unflushedBytes === 0;
}

async function end(world: World): Promise<void> {
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
}

test('a power loss that is reported to a READ CAPACITY of a script fails the next flush', async () => {
  const world = await newWorld(NOT_RETAINED);
  expect((await answer(world, WRITE)).error).toBe(0);
  world.disk.powerLoss();
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
  await question(world);
  expect((await answer(world, FLUSH)).error).toBe(5);
  expect((await answer(world, FLUSH)).error).toBe(0);
  await end(world);
});

test('a write does not reach the disk whose exchange is reported to a READ CAPACITY of a script', async () => {
  const world = await newWorld({ disk: { sizeBytes: SIZE_BYTES } });
  const decoy = TargetDisk.ram({ sizeBytes: SIZE_BYTES, serial: 'OTHER' });
  exchange(world, decoy);
  world.node.raiseAttention(TARGET_NAME, 0, INQUIRY_CHANGED);
  await question(world);
  expect((await answer(world, WRITE)).error).toBe(5);
  expect(isUntouched(decoy)).toBe(true);
  await end(world);
});

test('a power loss that is reported to the search for new LUNs fails the next flush', async () => {
  const world = await newWorld(NOT_RETAINED);
  expect((await answer(world, WRITE)).error).toBe(0);
  world.disk.powerLoss();
  world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
  await world.until(requireDisks(world.stack, null), 10_000);
  expect((await answer(world, FLUSH)).error).toBe(5);
  await end(world);
});

test('a disk exchanged in the middle of a probe, reported to a pending write, gets no write', async () => {
  const world = await newWorld({ disk: { sizeBytes: SIZE_BYTES } });
  const decoy = TargetDisk.ram({ sizeBytes: SIZE_BYTES, serial: 'OTHER' });
  // The write waits in the task set, and meets the disk and the attention that are there then.
  let isSlow = true;
  world.node.faults.onCommand = ({ opcode }) => {
    if (opcode !== 0x2a || !isSlow) return undefined;
    isSlow = false;
    return { delayMs: 400, startsLate: true };
  };
  const write = ask(world, WRITE);
  await world.pass(50);
  let wasIdentified = false;
  world.node.faults.onCommand = ({ opcode, cdb }) => {
    if (opcode === INQUIRY && cdb[2] === 0x83) wasIdentified = true;
    if (opcode !== MODE_SENSE_6 || !wasIdentified) return undefined;
    // The identity has been read and this question has begun; now the disk is exchanged, and the
    // write is the first to hear of it.
    world.clock.at(world.nowMs + 1, () => {
      exchange(world, decoy);
      world.node.raiseAttention(TARGET_NAME, 0, INQUIRY_CHANGED);
    });
    world.node.faults.onCommand = undefined;
    return { delayMs: 1000 };
  };
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  const read = ask(world, READ);
  expect((await world.until(write, 100_000)).error).toBe(5);
  expect((await world.until(read, 100_000)).error).toBe(5);
  expect(isUntouched(decoy)).toBe(true);
  await end(world);
});
