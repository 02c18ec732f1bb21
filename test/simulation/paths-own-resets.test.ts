import { describe, expect, it } from 'vitest';
import { answerTo, ask, block, EIO, endWell, FLUSH, read, write } from './asked.js';
import {
  ignoreWrites,
  READ_10,
  refuse,
  severalPaths,
  twoPaths,
  WRITE_10,
} from './several-paths.js';
import { TARGET_NAME } from './world.js';

const NOT_SUPPORTED = 5;
const NOT_RETAINED = {
  disk: { sizeBytes: 1 << 20, writeCache: 'volatile' },
  session: { retainWrites: 'never' },
} as const;
const RESET = { asc: 0x29, ascq: 0x03 };

describe('a report of a reset that is not ours', () => {
  it('a loss that is reported while the target refuses our reset fails the next flush', async () => {
    const { world, first, client } = await twoPaths(NOT_RETAINED);
    world.node.faults.onTaskManagement = () => NOT_SUPPORTED;
    expect((await answerTo(world, client, write(1, 8192))).error).toBe(0);
    const { cache } = world.stack.units[0]!.disk;
    const before = cache.powerEvents;
    const again = ignoreWrites(world);
    const asked = ask(world, client, write(2));
    await world.pass(50);
    again();
    refuse(first);
    await world.pass(3000);
    world.disk.powerLoss();
    world.node.raiseAttention(TARGET_NAME, 0, RESET);
    await world.pass(3000);
    first.become('up');
    await world.when(() => asked.reply !== null, 30_000);
    expect(asked.reply?.error).toBe(0);
    const lost = !(await answerTo(world, client, read(8192))).data.equals(block(1));
    expect(lost).toBe(true);
    const flush = await answerTo(world, client, FLUSH);
    expect([flush.error, cache.powerEvents > before]).toEqual([EIO, true]);
    await endWell(world);
  });

  it('a loss that is reported beside our reset fails the next flush', async () => {
    const { world, first, client } = await twoPaths(NOT_RETAINED);
    world.node.faults.isResetToldToAsker = true;
    expect((await answerTo(world, client, write(1, 8192))).error).toBe(0);
    const { cache } = world.stack.units[0]!.disk;
    const before = cache.powerEvents;
    const again = ignoreWrites(world);
    const asked = ask(world, client, write(2));
    await world.pass(50);
    again();
    world.node.faults.onTaskManagement = () => {
      // The reset of another initiator comes just before ours is done.
      world.disk.powerLoss();
      world.node.raiseAttention(TARGET_NAME, 0, RESET);
      world.node.faults.onTaskManagement = undefined;
      return undefined;
    };
    refuse(first);
    await world.when(() => asked.reply !== null, 30_000);
    expect(asked.reply?.error).toBe(0);
    await world.pass(1000);
    const flush = await answerTo(world, client, FLUSH);
    expect([flush.error, cache.powerEvents > before]).toEqual([EIO, true]);
    first.become('up');
    await endWell(world);
  });

  it('a unit that reports a reset for ever gets no command again and again', async () => {
    const { world, first, client } = await twoPaths({ session: { removalLatencySeconds: 30 } });
    world.node.faults.onTaskManagement = () => NOT_SUPPORTED;
    const again = ignoreWrites(world);
    const asked = ask(world, client, write(2));
    await world.pass(50);
    again();
    let count = 0;
    world.commands.addReport(({ portalGroupTag, opcode }) => {
      if (portalGroupTag !== 2) return undefined;
      if (opcode === READ_10) count += 1;
      return { sense: { key: 6, asc: 0x29, ascq: 3 } };
    });
    refuse(first);
    const reading = ask(world, client, read());
    await world.when(() => reading.reply !== null && asked.reply !== null, 100_000);
    expect(count).toBeLessThan(100);
    await endWell(world);
  });

  it.each(['read', 'flush'] as const)(
    'no flush succeeds before a loss that a %s meets is known to be none',
    async (meets) => {
      const { world, networks, client } = await severalPaths(3, {
        disk: { sizeBytes: 1 << 20, writeCache: 'volatile' },
        session: { retainWrites: 'never', pathPolicy: 'round-robin' },
      });
      world.node.faults.onTaskManagement = () => 'ignore';
      expect((await answerTo(world, client, write(1, 8192))).error).toBe(0);
      const answerAgain = world.commands.add(({ opcode }) =>
        opcode === WRITE_10 ? 'ignore' : undefined,
      );
      const asked = [0, 1, 2].map((index) => ask(world, client, write(2, index * 4096)));
      await world.pass(50);
      answerAgain();
      refuse(networks[0]!);
      await world.pass(100);
      world.disk.powerLoss();
      world.node.raiseAttention(TARGET_NAME, 0, RESET);
      const others = [world.newClient(), world.newClient()];
      if (meets === 'read') for (const other of others) ask(world, other, read(65_536));
      await world.pass(500);
      const flushes = others.map((other) => ask(world, other, FLUSH));
      await world.pass(2000);
      expect(flushes.map(({ reply }) => reply?.error)).not.toContain(0);
      networks[0]!.become('up');
      const all = [...asked, ...flushes];
      await world.when(() => all.every(({ reply }) => reply !== null), 100_000);
      expect(flushes.map(({ reply }) => reply?.error)).toEqual([EIO, EIO]);
      await endWell(world);
    },
  );
});

it('what a reset of ours does to the write cache is known after it', async () => {
  const { world, first, client } = await twoPaths({
    disk: { sizeBytes: 1 << 20, writeCache: 'none' },
  });
  const { disk } = world.stack.units[0]!;
  const again = ignoreWrites(world);
  const asked = ask(world, client, write(1));
  await world.pass(50);
  again();
  // The saved mode parameters are others.
  world.node.faults.onTaskManagement = () => {
    world.disk.writeCacheEnabled = true;
    return undefined;
  };
  expect(disk.facts.writeCacheEnabled).toBe(false);
  refuse(first);
  await world.when(() => asked.reply !== null, 30_000);
  await world.pass(1000);
  expect(disk.facts.writeCacheEnabled).toBe(true);
  first.become('up');
  await endWell(world);
});
