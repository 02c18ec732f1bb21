import { describe, expect, it } from 'vitest';
import { answerTo, ask, block, EIO, endWell, read, write } from './asked.js';
import {
  cut,
  eventsOf,
  firstWriteIsLate,
  ignoreWrites,
  pathsUp,
  refuse,
  severalPaths,
  twoPaths,
  WRITE_10,
} from './several-paths.js';
import { TARGET_NAME } from './world.js';

const NOT_SUPPORTED = 5;

describe('the fence of a lost path', () => {
  it.each([
    ['refuses every reset', NOT_SUPPORTED],
    ['answers no reset', 'ignore'],
  ] as const)('writes fail after the removal latency if the target %s', async (_how, answer) => {
    const { world, first, client } = await twoPaths({ session: { removalLatencySeconds: 30 } });
    world.node.faults.onTaskManagement = () => answer;
    const answerAgain = ignoreWrites(world);
    const asked = ask(world, client, write(1));
    await world.pass(50);
    answerAgain();
    const beganAtMs = world.nowMs;
    refuse(first);
    await world.when(() => asked.reply !== null, 100_000);
    expect(asked.reply?.error).toBe(EIO);
    expect(asked.atMs - beganAtMs).toBeGreaterThan(30_000);
    expect(asked.atMs - beganAtMs).toBeLessThan(42_000);
    expect(eventsOf(world, 'deviceRemoved').length).toBe(1);
    first.become('up');
    await world.when(() => eventsOf(world, 'deviceAttached').length === 1, 60_000);
    await endWell(world);
  });

  it('writes continue if the lost session is logged in again though the target does no resets', async () => {
    const { world, first, client } = await twoPaths();
    world.node.faults.onTaskManagement = () => NOT_SUPPORTED;
    const answerAgain = ignoreWrites(world);
    const asked = ask(world, client, write(1));
    await world.pass(50);
    answerAgain();
    refuse(first);
    await world.pass(20_000);
    expect(asked.reply).toBeNull();
    first.become('up');
    await world.when(() => asked.reply !== null, 20_000);
    expect(asked.reply?.error).toBe(0);
    await endWell(world);
  });

  it('writes fail in a process that takes over if the target does no resets', async () => {
    const { world, client } = await twoPaths({ session: { removalLatencySeconds: 30 } });
    world.node.faults.onTaskManagement = () => NOT_SUPPORTED;
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    world.kill();
    await world.takeOver();
    const asked = ask(world, world.newClient(), write(2));
    await world.when(() => asked.reply !== null, 100_000);
    expect(asked.reply?.error).toBe(EIO);
    await endWell(world);
  });

  it('a forced logout ends writes that wait', async () => {
    const { world, first, client } = await twoPaths();
    world.node.faults.onTaskManagement = () => 'ignore';
    ignoreWrites(world);
    const asked = ask(world, client, write(1));
    await world.pass(50);
    refuse(first);
    await world.pass(100);
    await endWell(world);
    expect(asked.reply?.error).toBe(EIO);
  });

  it('writes continue if the target asks for a logout while the reset is under way', async () => {
    const { world, first, client } = await twoPaths();
    let resets = 0;
    world.node.faults.onTaskManagement = () => {
      resets += 1;
      return resets === 1 ? 'ignore' : undefined;
    };
    const answerAgain = ignoreWrites(world);
    const asked = ask(world, client, write(1));
    await world.pass(50);
    answerAgain();
    refuse(first);
    await world.pass(100);
    for (const connection of world.node.connections) {
      connection.sendAsync({ event: 1, parameters: [0, 0, 5] });
    }
    await world.when(() => asked.reply !== null, 60_000);
    expect(asked.reply?.error).toBe(0);
    await endWell(world);
  });

  it('one answer to a reset is no proof for two paths that were lost one after the other', async () => {
    const { world, networks, client } = await severalPaths(4, {
      session: { pathPolicy: 'round-robin' },
    });
    let resets = 0;
    world.node.faults.taskManagementDelayMs = () => {
      resets += 1;
      return resets === 1 ? 300 : 0;
    };
    // The second reset is done only after the late write.
    world.node.faults.onTaskManagement = () =>
      resets === 0 || world.nowMs > 8000 ? undefined : NOT_SUPPORTED;
    const at = new Map<number, number>();
    world.commands.add(({ opcode, portalGroupTag, lba }) => {
      if (opcode !== WRITE_10 || world.nowMs > 1000) return undefined;
      at.set(portalGroupTag, (lba ?? 0) * 512);
      const isLate = portalGroupTag === 2 || portalGroupTag === 3;
      return isLate ? { delayMs: 5000, outlivesLink: true } : undefined;
    });
    networks[0]!.latencyMs = 200;
    networks[1]!.latencyMs = 600;
    for (let index = 0; index < 8; index += 1) ask(world, client, write(1, index * 4096));
    await world.pass(20);
    refuse(networks[2]!);
    await world.pass(650);
    refuse(networks[1]!);
    const offset = at.get(2)!;
    const newer = await answerTo(world, client, write(2, offset));
    expect(newer.error).toBe(0);
    await world.pass(30_000);
    expect((await answerTo(world, client, read(offset))).data.equals(block(2))).toBe(true);
    await endWell(world);
  });

  it('a login to another portal group is no proof that the old writes are over', async () => {
    const { world, first, second, client } = await twoPaths();
    refuse(first);
    await world.pass(3000);
    firstWriteIsLate(world, 30_000);
    const late = ask(world, client, write(1));
    await world.pass(50);
    const target = world.node.targets.get(TARGET_NAME)!;
    target.portals = target.portals!.map((portal) => ({
      ...portal,
      portalGroupTag: portal.portalGroupTag + 6,
    }));
    cut(second);
    await world.when(() => late.reply !== null, 25_000);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    await world.pass(60_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    first.become('up');
    await endWell(world);
  });

  it('commands of a third path that the reset ends are sent again at once', async () => {
    const { world, networks, client } = await severalPaths(3, {
      session: { pathPolicy: 'round-robin' },
    });
    let isLate = true;
    world.commands.add(({ portalGroupTag, lba }) =>
      isLate && lba !== undefined && portalGroupTag !== 1 ? { delayMs: 3000 } : undefined,
    );
    const asked = [0, 1, 2, 3, 4, 5].map((index) =>
      ask(world, client, index % 2 === 0 ? write(1, index * 4096) : read(index * 4096)),
    );
    await world.pass(50);
    isLate = false;
    refuse(networks[2]!);
    const fromMs = world.nowMs;
    await world.when(() => asked.every(({ reply }) => reply !== null), 200_000);
    expect(Math.max(...asked.map(({ atMs }) => atMs)) - fromMs).toBeLessThan(10_000);
    expect(pathsUp(world)).toBe(2);
    await endWell(world);
  });

  it.each([2, 3])(
    'a reset of ours that the target reports over all of %i paths holds nothing up',
    async (portals) => {
      const { world, networks, client } = await severalPaths(portals, {
        session: { pathPolicy: 'round-robin' },
      });
      world.node.faults.isResetToldToAsker = true;
      expect((await answerTo(world, client, write(1, 8192))).error).toBe(0);
      const { cache } = world.stack.units[0]!.disk;
      const answerAgain = ignoreWrites(world);
      const asked = Array.from({ length: portals }, (_, index) =>
        ask(world, client, write(2, index * 4096)),
      );
      await world.pass(50);
      answerAgain();
      const from = world.events.length;
      const beganAtMs = world.nowMs;
      refuse(networks[0]!);
      await world.when(() => asked.every(({ reply }) => reply !== null), 20_000);
      expect(asked.map(({ reply }) => reply?.error)).toEqual(asked.map(() => 0));
      expect(Math.max(...asked.map(({ atMs }) => atMs)) - beganAtMs).toBeLessThan(100);
      await world.pass(100);
      expect(cache.powerEvents).toBe(0);
      const names = world.events.slice(from).map(({ event }) => event);
      expect(names.filter((name) => name === 'pathState').length).toBe(1);
      expect(names).not.toContain('deviceHeld');
      expect(pathsUp(world)).toBe(portals - 1);
      // A reset that is not ours counts again.
      world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x29, ascq: 0x03 });
      expect((await answerTo(world, client, read())).error).toBe(0);
      expect(cache.powerEvents).toBeGreaterThan(0);
      networks[0]!.become('up');
      await endWell(world);
    },
  );
});
