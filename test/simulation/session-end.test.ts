/** The end of a session with several disks: one that is away takes none of the others with it. */
import { expect, test, vi } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { unflushed } from '../../src/lun/hand-over.js';
import { TargetDisk } from '../../src/target/disk.js';
import { COMMAND, type ModelClient, type ModelReply, type ModelRequest } from './model-client.js';
import { Seeded } from './seeded.js';
import { TARGET_NAME, World } from './world.js';

const BLOCK = Buffer.alloc(4096, 0x5a);
const WRITE: ModelRequest = {
  command: COMMAND.write,
  flags: 0,
  offset: 0,
  length: 4096,
  data: BLOCK,
};
const READ: ModelRequest = { command: COMMAND.read, flags: 0, offset: 0, length: 4096 };
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };
const CAPACITY_CHANGED = { asc: 0x2a, ascq: 0x09 };
const MODE_SENSE = 0x1a;

function ask(client: ModelClient, request: ModelRequest): Promise<ModelReply> {
  return new Promise((resolve) => client.send(request, resolve));
}

/** Two disks, of which the second is removed at the target; its user notices. */
async function worldWithoutLun1(removalLatencySeconds: number): Promise<World> {
  const world = new World({
    random: new Seeded(1),
    luns: 2,
    disk: { sizeBytes: 1 << 20 },
    session: { removalLatencySeconds },
  });
  await world.start();
  world.newClient(0);
  const neighbour = world.newClient(1);
  world.node.setLun(TARGET_NAME, 1, null);
  neighbour.send(READ, () => undefined);
  await world.pass(3000);
  return world;
}

test.each([
  ['away', 60, 'holding'],
  ['removed', 1, 'failing'],
])(
  'an orderly close writes the cached data of a disk back, though another disk is %s',
  async (_what, latencySeconds, mode) => {
    const world = await worldWithoutLun1(latencySeconds);
    expect(world.unitOf(1)?.queue.mode).toBe(mode);
    const [client] = [...world.exporter.clients];
    const replies: ModelReply[] = [];
    world.exporter.writeBack.set(0, async () => {
      replies.push(await ask(client!, WRITE));
    });
    await world.until(world.stack.close(), 10_000);
    expect(replies.map(({ error }) => error)).toEqual([0]);
    expect(world.disk.read(0, 4096).equals(BLOCK)).toBe(true);
    await world.end();
    expect(world.faults).toEqual([]);
  },
);

test('a disk in use refuses the close of all, and continues, though another one is away', async () => {
  const world = await worldWithoutLun1(60);
  world.exporter.inUse.add(0);
  await expect(world.until(world.stack.close(), 10_000)).rejects.toThrow('LUN 0 is in use');
  const [client] = [...world.exporter.clients];
  expect((await world.until(ask(client!, WRITE), 10_000)).error).toBe(0);
  expect(world.unitOf(1)?.queue.mode).toBe('holding');
  world.exporter.inUse.clear();
  await world.end();
  expect(world.faults).toEqual([]);
});

/** Two disks; the user of the first writes once more before it is removed. */
async function worldThatWritesBack() {
  const world = new World({ random: new Seeded(1), luns: 2, disk: { sizeBytes: 1 << 20 } });
  await world.start();
  const client = world.newClient(0);
  const replies: ModelReply[] = [];
  world.exporter.writeBack.set(0, async () => {
    replies.push(await ask(client, WRITE));
  });
  return { world, client, replies };
}

test('an orderly close waits for a disk that is being probed', async () => {
  const { world, client, replies } = await worldThatWritesBack();
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  client.send(READ, () => undefined);
  await world.when(() => world.unit.queue.mode === 'holding', 1000);
  expect(world.unit.queue.mode).toBe('holding');
  await world.until(world.stack.close(), 10_000);
  expect(replies.map(({ error }) => error)).toEqual([0]);
  await world.end();
  expect(world.faults).toEqual([]);
});

test('an orderly close waits for a disk whose probe begins while that of another one is waited for', async () => {
  const { world, client, replies } = await worldThatWritesBack();
  world.commands.add(({ lun, opcode }) => {
    // The last question to LUN 1: meanwhile LUN 0 begins to be probed, which takes longer.
    if (lun === 1 && opcode === MODE_SENSE) {
      world.node.raiseAttention(TARGET_NAME, 0, CAPACITY_CHANGED);
      client.send(READ, () => undefined);
    }
    return { delayMs: lun === 1 ? 300 : 50 };
  });
  world.node.raiseAttention(TARGET_NAME, 1, CAPACITY_CHANGED);
  world.newClient(1).send(READ, () => undefined);
  await world.when(() => world.unitOf(1)?.queue.mode === 'holding', 1000);
  const closed = world.stack.close();
  await world.when(() => world.unitOf(1)?.queue.mode !== 'holding', 10_000);
  expect(world.unitOf(0)?.queue.mode).toBe('holding');
  await world.until(closed, 20_000);
  expect(replies.map(({ error }) => error)).toEqual([0]);
  await world.end();
  expect(world.faults).toEqual([]);
});

test('a forced close does not wait for a disk that is being probed', async () => {
  const world = await worldWithoutLun1(60);
  world.node.faults.onCommand = ({ lun }) => (lun === 0 ? 'ignore' : undefined);
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  world.stack.probeAgain();
  const orderly = world.stack.close();
  await world.pass(1000);
  const beganAtMs = world.nowMs;
  await world.until(world.stack.close({ force: true }), 10_000);
  expect(world.nowMs - beganAtMs).toBeLessThan(100);
  await orderly;
  await world.end();
  expect(world.faults).toEqual([]);
});

test('a close that is forced while an orderly one fails ends the session for both callers', async () => {
  const world = new World({ random: new Seeded(1), luns: 2, disk: { sizeBytes: 1 << 20 } });
  await world.start();
  world.exporter.writeBack.set(1, async () => {
    await world.stack.pause(500);
    throw new UsageError('LUN 1 could not flush', { code: 'ERR_FLUSH_FAILED' });
  });
  const orderly = world.stack.close().then(() => 'closed', String);
  await world.pass(100);
  const forced = world.stack.close({ force: true }).then(() => 'closed', String);
  expect(await world.until(Promise.all([orderly, forced]), 10_000)).toEqual(['closed', 'closed']);
  expect(world.stack.handle.session.state).toBe('closed');
  await world.end();
  expect(world.faults).toEqual([]);
});

test('a disk whose export fails leaves nothing behind and can be added again', async () => {
  const world = new World({ random: new Seeded(1), luns: 2, disk: { sizeBytes: 1 << 20 } });
  await world.start();
  const facts = world.unitOf(1)!.facts;
  world.node.setLun(TARGET_NAME, 2, TargetDisk.ram({ sizeBytes: 1 << 20 }));
  const add = vi.spyOn(world.exporter, 'add').mockRejectedValueOnce(new UsageError('no room'));
  const guaranteed = world.stack.resources.budget.bytesGuaranteed;
  const refused = world.stack.addDisk(2, facts).then(() => 'added', String);
  expect(await world.until(refused, 10_000)).toContain('no room');
  add.mockRestore();
  expect(world.stack.units.map(({ lun }) => lun)).toEqual([0, 1]);
  expect(world.stack.resources.budget.bytesGuaranteed).toBe(guaranteed);
  await world.until(world.stack.addDisk(2, facts), 10_000);
  expect(world.stack.exports.map(({ lun }) => lun)).toEqual([0, 1, 2]);
  await world.end();
  expect(world.faults).toEqual([]);
});

test('disks are flushed within seconds though one of them hangs, which is reported separately', async () => {
  const disk = { sizeBytes: 1 << 20, writeCache: 'volatile' } as const;
  const world = new World({ random: new Seeded(1), luns: 3, disk });
  await world.start();
  for (const lun of [0, 2]) {
    await world.until(ask(world.newClient(lun), WRITE), 10_000);
  }
  world.node.faults.onCommand = ({ lun }) => (lun === 1 ? 'ignore' : undefined);
  const beganAtMs = world.nowMs;
  const left = unflushed(world.stack, [0, 1, 2], world.clock);
  expect(await world.until(left, 300_000)).toEqual([1]);
  expect(world.nowMs - beganAtMs).toBeLessThan(6000);
  expect(world.disks.map(({ unflushedBytes }) => unflushedBytes)).toEqual([0, 0, 0]);
  world.node.faults.onCommand = undefined;
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
});
