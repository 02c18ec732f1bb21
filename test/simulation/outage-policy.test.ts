import { expect, test } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { COMMAND, type ModelReply, type ModelRequest } from './model-client.js';
import { Seeded } from './seeded.js';
import { TARGET_NAME, World, type WorldOptions } from './world.js';

const EIO = 5;
const BLOCK = Buffer.alloc(4096, 0x5a);
const WRITE: ModelRequest = {
  command: COMMAND.write,
  flags: 0,
  offset: 0,
  length: 4096,
  data: BLOCK,
};
const READ: ModelRequest = { command: COMMAND.read, flags: 0, offset: 0, length: 4096 };
/** The rule that holds where nothing is retained. */
const NOT_RETAINED = { retainWrites: 'never' } as const;
const FLUSH: ModelRequest = { command: COMMAND.flush, flags: 0, offset: 0, length: 0 };

async function newWorld(options: Omit<WorldOptions, 'random'> = {}): Promise<World> {
  const world = new World({ random: new Seeded(1), ...options });
  await world.start();
  return world;
}

/** Sends and says what came back and when; `null` while nothing has. */
function ask(world: World, request: ModelRequest): { reply: ModelReply | null; atMs: number } {
  const asked: { reply: ModelReply | null; atMs: number } = { reply: null, atMs: 0 };
  const client = [...world.exporter.clients][0] ?? world.newClient();
  client.send(request, (reply) => {
    asked.reply = reply;
    asked.atMs = world.nowMs;
  });
  return asked;
}

async function end(world: World): Promise<void> {
  await world.until(world.stack.close({ force: true }), 10_000);
  await world.pass(4000);
  // A timer that is still set would keep the process alive.
  expect(world.clock.pending).toBe(0);
  await world.end();
  expect(world.faults).toEqual([]);
}

test('a write and a read succeed, and a logout leaves nothing behind', async () => {
  const world = await newWorld();
  const write = ask(world, WRITE);
  await world.pass(100);
  const read = ask(world, READ);
  await world.pass(100);
  expect(write.reply?.error).toBe(0);
  expect(read.reply?.data.equals(BLOCK)).toBe(true);
  await end(world);
});

test('a write during an outage waits and succeeds when the target is back', async () => {
  const world = await newWorld();
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(100);
  const write = ask(world, WRITE);
  await world.pass(20_000);
  expect(write.reply).toBeNull();
  world.network.become('up');
  await world.pass(6000);
  expect(write.reply?.error).toBe(0);
  expect(world.disk.read(0, 4096).equals(BLOCK)).toBe(true);
  expect(world.stack.counters.outages).toBe(1);
  expect(world.stack.counters.heldRequests).toBe(1);
  expect(world.stack.counters.longestHoldMs).toBeGreaterThan(19_000);
  await end(world);
});

test('held requests fail with EIO after the removal latency, and the LUN returns later', async () => {
  const world = await newWorld();
  world.network.become('unreachable');
  world.network.current?.cut();
  const write = ask(world, WRITE);
  await world.pass(59_900);
  expect(write.reply).toBeNull();
  await world.pass(200);
  expect(write.reply?.error).toBe(EIO);
  expect(world.exporter.isExported).toBe(false);
  expect(world.stack.handle.state).toBe('removed');
  world.network.become('up');
  await world.pass(6000);
  expect(world.exporter.isExported).toBe(true);
  const read = ask(world, READ);
  await world.pass(100);
  expect(read.reply?.error).toBe(0);
  await end(world);
});

test('the removal latency may be made shorter, longer and endless during an outage', async () => {
  const world = await newWorld();
  world.network.become('unknownHost');
  world.network.current?.cut();
  const write = ask(world, WRITE);
  await world.pass(30_000);
  world.stack.setRemovalLatency(Number.POSITIVE_INFINITY);
  await world.pass(300_000);
  expect(write.reply).toBeNull();
  world.stack.setRemovalLatency(400);
  await world.pass(60_000);
  expect(write.reply).toBeNull();
  world.stack.setRemovalLatency(200);
  await world.pass(10);
  expect(write.reply?.error).toBe(EIO);
  await end(world);
});

test('a LUN that is missing after the login is awaited, until the latency', async () => {
  const world = await newWorld();
  const target = [...world.node.targets.values()][0]!;
  world.restartTarget({ powerLoss: false });
  target.luns.clear();
  const write = ask(world, WRITE);
  await world.pass(30_000);
  expect(world.stack.handle.session.state).toBe('loggedIn');
  expect(write.reply).toBeNull();
  target.luns.set(0, world.disk);
  await world.pass(6000);
  expect(write.reply?.error).toBe(0);
  target.luns.clear();
  world.restartTarget({ powerLoss: false });
  const late = ask(world, WRITE);
  await world.pass(61_000);
  expect(late.reply?.error).toBe(EIO);
  await end(world);
});

test('a target that accepts logins and drops them does not delay the removal for ever', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: 20 } });
  const write = ask(world, WRITE);
  world.node.faults.onCommand = () => 'drop-connection';
  await world.pass(19_000);
  expect(write.reply).toBeNull();
  await world.pass(3000);
  expect(write.reply?.error).toBe(EIO);
  await end(world);
});

test('an attention that the INQUIRY data changed holds the next write until the disk is known', async () => {
  const { TargetDisk } = await import('../../src/target/disk.js');
  const world = await newWorld();
  const other = TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'OTHER' });
  const target = [...world.node.targets.values()][0]!;
  target.luns.set(0, other);
  const write = ask(world, WRITE);
  await world.pass(1000);
  expect(write.reply?.error).toBe(EIO);
  expect(other.extent(0, 1 << 20).mapped).toBe(false);
  expect(world.events.at(-1)).toMatchObject({ event: 'deviceRemoved' });
  target.luns.set(0, world.disk);
  await world.pass(6000);
  expect(world.exporter.isExported).toBe(true);
  await end(world);
});

test('a disk that grew is resized for its clients, one that shrank is removed', async () => {
  const world = await newWorld();
  world.disk.resize(2 << 20);
  ask(world, READ);
  await world.pass(1000);
  expect(world.exporter.sizeBytes).toBe(2 << 20);
  world.disk.resize(1 << 20);
  world.restartTarget({ powerLoss: false });
  await world.pass(10_000);
  expect(world.exporter.isExported).toBe(false);
  await end(world);
});

test('exactly the next flush fails after a power loss with unflushed writes', async () => {
  const world = await newWorld({ session: NOT_RETAINED, disk: { writeCache: 'volatile' } });
  ask(world, WRITE);
  await world.pass(100);
  world.restartTarget({ powerLoss: true });
  await world.pass(10_000);
  const first = ask(world, FLUSH);
  await world.pass(100);
  const second = ask(world, FLUSH);
  await world.pass(100);
  expect(first.reply?.error).toBe(EIO);
  expect(second.reply?.error).toBe(0);
  await end(world);
});

test('a power loss is not missed when the response that reports it is lost with its connection', async () => {
  const world = await newWorld({ session: NOT_RETAINED, disk: { writeCache: 'volatile' } });
  ask(world, WRITE);
  await world.pass(100);
  let left = 1;
  world.node.faults.onCommand = () => {
    left -= 1;
    return left < 0 ? undefined : 'drop-connection-after';
  };
  world.restartTarget({ powerLoss: true });
  await world.pass(20_000);
  const flush = ask(world, FLUSH);
  await world.pass(100);
  expect(flush.reply?.error).toBe(EIO);
  await end(world);
});

test('a probe in a living session is no reason to suspect a power loss', async () => {
  const world = await newWorld({ disk: { writeCache: 'volatile' } });
  ask(world, WRITE);
  await world.pass(100);
  world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x2a, ascq: 0x09 });
  let left = 2;
  world.node.faults.onCommand = () => {
    left -= 1;
    return left === 0 ? 'drop-connection-after' : undefined;
  };
  ask(world, READ);
  await world.pass(10_000);
  expect(world.stack.counters.outages).toBe(1);
  const flush = ask(world, FLUSH);
  await world.pass(100);
  expect(flush.reply?.error).toBe(0);
  await end(world);
});

test('a target that requests the logout gets it, and nothing is lost meanwhile', async () => {
  const world = await newWorld();
  for (const connection of world.node.connections) {
    connection.sendAsync({ event: 1, parameters: [0, 0, 3] });
  }
  const writes = [ask(world, WRITE), ask(world, WRITE)];
  await world.pass(1);
  writes.push(ask(world, WRITE));
  await world.pass(10_000);
  expect(writes.map((write) => write.reply?.error)).toEqual([0, 0, 0]);
  await end(world);
});

test('a blackholed path is detected within NOP interval and timeout', async () => {
  const world = await newWorld();
  world.network.become('blackhole');
  const blindAtMs = world.nowMs;
  await world.when(() => world.stack.handle.session.state === 'reconnecting', 60_000);
  expect(world.nowMs - blindAtMs).toBeLessThanOrEqual(10_000);
  await end(world);
});

test('a probe after an attention does not start the removal latency of the outage after it', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: 5 } });
  world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x2a, ascq: 0x09 });
  const write = ask(world, WRITE);
  // The attention is reported, and the probe that follows is not answered.
  let left = 1;
  world.node.faults.onCommand = () => {
    left -= 1;
    return left < 0 ? 'ignore' : undefined;
  };
  await world.pass(2000);
  world.network.become('refused');
  world.network.current?.cut();
  const lostAtMs = world.nowMs;
  await world.when(() => write.reply !== null, 20_000);
  expect(write.reply?.error).toBe(EIO);
  expect(write.atMs - lostAtMs).toBeGreaterThanOrEqual(5000);
  await end(world);
});

test('a probe that is never answered ends with the removal latency', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: 5 } });
  world.restartTarget({ powerLoss: false });
  world.node.faults.onCommand = () => 'ignore';
  const write = ask(world, WRITE);
  await world.pass(4900);
  expect(write.reply).toBeNull();
  await world.pass(200);
  expect(write.reply?.error).toBe(EIO);
  expect(world.stack.handle.session.state).toBe('loggedIn');
  await end(world);
});

test('an export whose return is refused, or interrupted by the next outage, comes later', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: 2 } });
  const { exporter } = world;
  const add = exporter.add.bind(exporter);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(3000);
  expect(exporter.isExported).toBe(false);
  exporter.add = () => Promise.reject(new UsageError('the socket path is taken'));
  world.network.become('up');
  await world.pass(6000);
  expect(world.events.at(-1)).toMatchObject({
    event: 'deviceRemoved',
    reason: expect.stringContaining('the socket path is taken'),
  });
  let letGo = () => {};
  exporter.add = async (unit) => {
    await new Promise<void>((resolve) => {
      letGo = resolve;
    });
    await add(unit);
  };
  await world.pass(6000);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(100);
  letGo();
  await world.pass(100);
  expect(exporter.isExported).toBe(true);
  const write = ask(world, WRITE);
  await world.pass(1000);
  expect(write.reply).toBeNull();
  exporter.add = add;
  world.network.become('up');
  await world.pass(6000);
  const late = ask(world, WRITE);
  await world.pass(100);
  expect(late.reply?.error).toBe(0);
  await end(world);
});

test('a logout that is refused because the disk is in use leaves everything as it was', async () => {
  const world = await newWorld();
  const { exporter } = world;
  const close = exporter.close.bind(exporter);
  exporter.close = () => Promise.reject(new UsageError('in use', { exitCode: 28 }));
  await expect(world.until(world.stack.close(), 1000)).rejects.toThrow('in use');
  const write = ask(world, WRITE);
  await world.pass(100);
  expect(write.reply?.error).toBe(0);
  exporter.close = close;
  await end(world);
});

test.each(['refused', 'unreachable', 'unknownHost', 'blackhole'] as const)(
  'a logout while the network is %s ends at once',
  async (weather) => {
    const world = await newWorld();
    world.network.become(weather);
    world.network.current?.cut();
    const write = ask(world, WRITE);
    await world.pass(12_345);
    const beganAtMs = world.nowMs;
    await world.until(world.stack.close(), 10_000);
    expect(world.nowMs - beganAtMs).toBeLessThan(10);
    expect(write.reply?.error).toBe(EIO);
    await end(world);
  },
);

test('a login that is refused for ever is reported by doubling numbers, not at each attempt', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: Number.POSITIVE_INFINITY } });
  world.node.faults.loginStatus = { class: 2, detail: 2 };
  world.network.current?.cut();
  await world.pass(600_000);
  const refusals = world.events.filter(({ event }) => event === 'loginRefused');
  expect(refusals.length).toBe(7);
  expect(refusals[0]).toMatchObject({ statusClass: 2, statusDetail: 2 });
  world.node.faults.loginStatus = undefined;
  await world.pass(6000);
  expect(world.stack.handle.session.state).toBe('loggedIn');
  await end(world);
});

test('INQUIRY is answered from the cache in an outage, and other commands wait', async () => {
  const world = await newWorld();
  const { handle } = world.stack;
  const inquiry = {
    lun: 0,
    cdb: Buffer.from([0x12, 0, 0, 0, 96, 0]),
    direction: 'read',
    length: 96,
  } as const;
  const capacity = { ...inquiry, cdb: Buffer.from([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), length: 8 };
  const fresh = await world.until(handle.execute(inquiry), 1000);
  expect(fresh.cached).toBeUndefined();
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(1000);
  const cached = await world.until(handle.execute(inquiry), 1000);
  expect(cached).toEqual({ ...fresh, cached: true });
  const waiting = handle.execute(capacity);
  await world.pass(10_000);
  world.network.become('up');
  const answer = await world.until(waiting, 6000);
  expect(answer.data.readUInt32BE(0)).toBe((1 << 20) / 512 - 1);
  world.network.become('refused');
  world.network.current?.cut();
  await world.pass(1000);
  const tooLong = expect(handle.execute(capacity)).rejects.toThrow(/removal latency/);
  await world.pass(61_000);
  await tooLong;
  await end(world);
});
