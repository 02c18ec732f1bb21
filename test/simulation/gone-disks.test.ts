/** A disk that was not at its LUN for a time may report nothing of its cache afterwards, as with tgt. */
import { expect, test } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { answerTo, EIO, endWell, FLUSH, newWorld, read, write } from './asked.js';
import { TARGET_NAME, type World } from './world.js';

const MIB = 1 << 20;
const VOLATILE = { disk: { sizeBytes: MIB, writeCache: 'volatile' } } as const;
const NOT_RETAINED = { ...VOLATILE, session: { retainWrites: 'never' } } as const;
const NO_LUN = { sense: { key: 0x05, asc: 0x25, ascq: 0x00 } } as const;
const INQUIRY_CHANGED = { asc: 0x3f, ascq: 0x03 } as const;
const TEST_UNIT_READY = 0x00;

/** What is at LUN 0 from now on; no session hears of it. */
function put(world: World, disk: TargetDisk | null): void {
  const luns = world.node.targets.get(TARGET_NAME)?.luns;
  if (disk === null) luns?.delete(0);
  else luns?.set(0, disk);
}

async function isState(world: World, state: string): Promise<void> {
  expect(await world.when(() => world.stack.luns[0]?.state === state, 100_000)).toBe(true);
}

test('the next flush fails if the disk lost its power and tgt added the LUN after the login', async () => {
  const world = await newWorld(NOT_RETAINED);
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  world.disk.powerLoss();
  put(world, null);
  world.restartTarget({ powerLoss: false });
  await isState(world, 'checking');
  await isState(world, 'away');
  put(world, world.disk);
  await isState(world, 'serving');
  expect((await answerTo(world, client, read())).data.every((byte) => byte === 0)).toBe(true);
  expect((await answerTo(world, client, FLUSH)).error).toBe(EIO);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  await endWell(world);
});

test('the next flush fails if one request met that the LUN is gone, and the probe found it again', async () => {
  const world = await newWorld(NOT_RETAINED);
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  let isGone = true;
  world.commands.add(({ opcode }) => {
    if (opcode === TEST_UNIT_READY) isGone = false;
    return isGone ? NO_LUN : undefined;
  });
  world.disk.powerLoss();
  expect((await answerTo(world, client, read())).error).toBe(0);
  expect((await answerTo(world, client, FLUSH)).error).toBe(EIO);
  await endWell(world);
});

test('a flush of the first client after the return fails if the disk lost its power while another was there', async () => {
  const world = await newWorld(NOT_RETAINED);
  const decoy = TargetDisk.ram({ sizeBytes: MIB, serial: 'OTHER' });
  const before = world.newClient();
  expect((await answerTo(world, before, write(1))).error).toBe(0);
  for (const disk of [decoy, world.disk]) disk.announcesChanges = false;
  put(world, decoy);
  world.node.raiseAttention(TARGET_NAME, 0, INQUIRY_CHANGED);
  expect((await answerTo(world, before, read())).error).toBe(EIO);
  await isState(world, 'removed');
  world.disk.powerLoss();
  put(world, world.disk);
  await isState(world, 'serving');
  const client = world.newClient();
  expect((await answerTo(world, client, FLUSH)).error).toBe(EIO);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  await endWell(world);
});

test('no flush fails after a LUN was gone if all that was written had been flushed', async () => {
  const world = await newWorld(NOT_RETAINED);
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  put(world, null);
  const held = answerTo(world, client, read());
  await isState(world, 'away');
  put(world, world.disk);
  expect((await held).error).toBe(0);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  await endWell(world);
});

test('a write that the disk lost while its LUN was gone is written again before any client reads', async () => {
  const world = await newWorld(VOLATILE);
  const client = world.newClient();
  expect((await answerTo(world, client, write(1))).error).toBe(0);
  put(world, null);
  const held = answerTo(world, client, read());
  await isState(world, 'away');
  world.disk.powerLoss();
  put(world, world.disk);
  expect((await held).data.every((byte) => byte === 1)).toBe(true);
  expect((await answerTo(world, client, FLUSH)).error).toBe(0);
  await endWell(world);
});
