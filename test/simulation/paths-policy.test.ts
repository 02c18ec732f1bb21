import { describe, expect, it } from 'vitest';
import type { PortGroup } from '../../src/target/settings.js';
import { answerTo, ask, block, endWell, read, write } from './asked.js';
import {
  cut,
  eventsOf,
  pathsUp,
  READ_10,
  refuse,
  severalPaths,
  twoGroups,
} from './several-paths.js';
import type { World } from './world.js';

const TEST_UNIT_READY = 0x00;

/** Portals over which reads arrive, in their order. */
function readsOf(world: World): number[] {
  const tags: number[] = [];
  world.commands.add(({ opcode, portalGroupTag }) => {
    if (opcode === READ_10) tags.push(portalGroupTag);
    return undefined;
  });
  return tags;
}

const count = (tags: readonly number[], tag: number): number =>
  tags.filter((each) => each === tag).length;

describe('which path the next command takes', () => {
  it('all commands take one path with failover', async () => {
    const { world, client } = await severalPaths(3, { session: { pathPolicy: 'failover' } });
    const tags = readsOf(world);
    const reads = Array.from({ length: 30 }, (_, at) => ask(world, client, read(at * 4096)));
    await world.when(() => reads.every(({ reply }) => reply !== null), 10_000);
    expect(tags).toEqual(Array(30).fill(1));
    await endWell(world);
  });

  it('commands take all paths in turn with round-robin', async () => {
    const { world, client } = await severalPaths(3, { session: { pathPolicy: 'round-robin' } });
    const tags = readsOf(world);
    for (let at = 0; at < 9; at += 1) await answerTo(world, client, read(at * 4096));
    expect(tags.slice(1).map((tag, at) => (tag - tags[at]! + 3) % 3)).toEqual(Array(8).fill(1));
    await endWell(world);
  });

  it('commands take the path with the fewest under way with least-queue', async () => {
    const { world, client } = await severalPaths(2, { session: { pathPolicy: 'least-queue' } });
    const tags = readsOf(world);
    world.commands.add(({ opcode, portalGroupTag }) =>
      opcode === READ_10 && portalGroupTag === 1 ? { delayMs: 1000 } : undefined,
    );
    const first = [ask(world, client, read(0))];
    await world.pass(10);
    first.push(ask(world, client, read(4096)));
    await world.pass(100);
    expect(tags.toSorted()).toEqual([1, 2]);
    for (let at = 2; at < 12; at += 1) await answerTo(world, client, read(at * 4096));
    expect([count(tags, 1), count(tags, 2)]).toEqual([1, 11]);
    await world.when(() => first.every(({ reply }) => reply !== null), 10_000);
    await endWell(world);
  });

  it.each(['least-queue', 'round-robin', 'failover'] as const)(
    'no command takes a path of a group that is worse with %s, however long the queue is',
    async (pathPolicy) => {
      const portGroups = new Map<number, PortGroup>([
        [1, { state: 'nonOptimized' }],
        [2, { state: 'optimized' }],
        [3, { state: 'optimized' }],
      ]);
      const { world, client } = await severalPaths(3, { portGroups, session: { pathPolicy } });
      const tags = readsOf(world);
      const reads = Array.from({ length: 60 }, (_, at) => ask(world, client, read(at * 4096)));
      await world.when(() => reads.every(({ reply }) => reply !== null), 10_000);
      expect(count(tags, 1)).toBe(0);
      expect(count(tags, 2) + count(tags, 3)).toBe(60);
      await endWell(world);
    },
  );
});

describe('the way back to a better path', () => {
  const fails = async (world: World, times: number) => {
    for (let failure = 0; failure < times; failure += 1) {
      refuse(world.network);
      await world.pass(1000);
      world.network.become('up');
      await world.when(() => pathsUp(world) === 2, 20_000);
    }
  };

  it('a better path is used again as soon as the disk was found over it', async () => {
    const { world, used } = await twoGroups();
    expect(await used()).toEqual([1]);
    await fails(world, 2);
    expect(await used()).toEqual([1]);
    await endWell(world);
  });

  it('a better path that has failed three times in a minute is used after a minute without failure', async () => {
    const { world, used } = await twoGroups();
    await fails(world, 3);
    expect(await used()).toEqual([2]);
    await world.pass(55_000);
    expect(await used()).toEqual([2]);
    await world.pass(6000);
    expect(await used()).toEqual([1]);
    await endWell(world);
  });

  it('a path that fails again before the minute has passed starts the minute anew', async () => {
    const { world, used } = await twoGroups();
    await fails(world, 3);
    await world.pass(40_000);
    await fails(world, 1);
    await world.pass(30_000);
    expect(await used()).toEqual([2]);
    await world.pass(31_000);
    expect(await used()).toEqual([1]);
    await endWell(world);
  });

  it('a path that has failed three times is used if there is no other', async () => {
    const { world, used } = await twoGroups();
    await fails(world, 3);
    refuse(world.networks[1]!);
    expect(await used()).toEqual([1]);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    await endWell(world);
  });
});

describe('how often paths are checked', () => {
  it.each([1, 5, 20])('each path is checked every %i s', async (pathCheckSeconds) => {
    const { world } = await severalPaths(2, { session: { pathCheckSeconds } });
    const checks: number[] = [];
    world.commands.add(({ opcode, portalGroupTag }) => {
      if (opcode === TEST_UNIT_READY) checks.push(portalGroupTag);
      return undefined;
    });
    await world.pass(100_000);
    for (const tag of [1, 2]) {
      expect(count(checks, tag)).toBeGreaterThanOrEqual(100 / pathCheckSeconds - 2);
      expect(count(checks, tag)).toBeLessThanOrEqual(100 / pathCheckSeconds + 1);
    }
    await endWell(world);
  });

  it('an idle path that is better without a word is used after the next check', async () => {
    const { world, become, used } = await twoGroups({ session: { pathCheckSeconds: 20 } });
    await world.pass(20_000);
    become(1, 'nonOptimized', false);
    become(2, 'optimized', false);
    await world.pass(21_000);
    expect(await used()).toEqual([2]);
    await endWell(world);
  });
});

describe('a path that is gone for an hour', () => {
  it('no request fails or waits, and the path is used again after it', async () => {
    const { world, client } = await severalPaths(2, { session: { pathPolicy: 'round-robin' } });
    refuse(world.network);
    for (let minute = 0; minute < 60; minute += 1) {
      const value = minute + 1;
      const beganAtMs = world.nowMs;
      expect((await answerTo(world, client, write(value))).error).toBe(0);
      expect((await answerTo(world, client, read())).data.equals(block(value))).toBe(true);
      expect(world.nowMs - beganAtMs).toBeLessThan(500);
      await world.pass(60_000);
      if (minute === 30) world.network.become('blackhole');
      if (minute === 45) world.network.become('unreachable');
    }
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    world.network.become('up');
    await world.when(() => pathsUp(world) === 2, 30_000);
    const tags = readsOf(world);
    for (let at = 0; at < 4; at += 1) await answerTo(world, client, read());
    expect([count(tags, 1), count(tags, 2)]).toEqual([2, 2]);
    cut(world.networks[1]!);
    expect((await answerTo(world, client, read())).data.equals(block(60))).toBe(true);
    await endWell(world);
  });
});
