import { describe, expect, it } from 'vitest';
import type { PortGroup } from '../../src/target/settings.js';
import { answerTo, ask, block, endWell, FLUSH, read, write } from './asked.js';
import { BlockUser, endOfUse } from './block-user.js';
import { eachSeed } from './each-seed.js';
import {
  anyGroups,
  anyPaths,
  cut,
  eventsOf,
  firstWriteIsLate,
  GROUPS_CHANGED,
  pathsUp,
  twoGroups,
  twoPaths,
  WRITE_10,
} from './several-paths.js';
import { TARGET_NAME, World } from './world.js';

describe('a disk with two paths', () => {
  it('both sessions log in, with identities of their own', async () => {
    const { world } = await twoPaths();
    expect([pathsUp(world), world.isids.size]).toEqual([2, 2]);
    expect(world.node.sessions.length).toBe(2);
    await endWell(world);
    expect(world.node.sessions.length).toBe(0);
  });

  it('a path that is reset costs no request, and no outage begins', async () => {
    const { world, first, client } = await twoPaths();
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    first.become('refused');
    cut(first);
    const beganAtMs = world.nowMs;
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    expect(world.nowMs - beganAtMs).toBeLessThan(500);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    expect(eventsOf(world, 'pathSwitched')).toMatchObject([
      { from: '192.0.2.1:3260', to: '192.0.2.2:3260' },
    ]);
    first.become('up');
    await world.when(() => pathsUp(world) === 2, 20_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    await endWell(world);
  });

  it('a path that is silent costs the time of a ping', async () => {
    const { world, first, client } = await twoPaths({
      session: { noopIntervalSeconds: 2, noopTimeoutSeconds: 2 },
    });
    first.become('blackhole');
    const beganAtMs = world.nowMs;
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    expect(world.nowMs - beganAtMs).toBeLessThan(4500);
    first.become('up');
    await endWell(world);
  });

  it('a write that is late on a path that is gone does not come after a newer one', async () => {
    const { world, first, client } = await twoPaths();
    const back = firstWriteIsLate(world, 3000);
    const late = ask(world, client, write(1));
    await world.pass(50);
    first.become('refused');
    cut(first);
    await world.when(() => late.reply !== null, 20_000);
    expect(late.reply?.error).toBe(0);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    await world.pass(10_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    back();
    first.become('up');
    await endWell(world);
  });

  it('a warning says that the logical unit is reset because of old writes, not of a late task', async () => {
    const { world, first, client } = await twoPaths();
    const back = world.commands.add(({ opcode }) =>
      opcode === WRITE_10 ? { delayMs: 3000 } : undefined,
    );
    const written = ask(world, client, write(1));
    await world.pass(50);
    back();
    first.become('refused');
    cut(first);
    await world.when(() => written.reply !== null, 20_000);
    expect(eventsOf(world, 'warning')).toMatchObject([
      { message: 'resetting the logical unit, so that old writes of a session that is gone end' },
    ]);
    first.become('up');
    await endWell(world);
  });

  it('an outage like any other begins if no path is left', async () => {
    const { world, first, second, client } = await twoPaths();
    for (const network of [first, second]) network.become('refused');
    for (const network of [first, second]) cut(network);
    const held = ask(world, client, write(1));
    await world.pass(8000);
    expect(held.reply).toBeNull();
    second.become('up');
    await world.when(() => held.reply !== null, 10_000);
    expect(held.reply?.error).toBe(0);
    expect(eventsOf(world, 'deviceHeld').length).toBe(1);
    expect(eventsOf(world, 'deviceReleased').length).toBe(1);
    first.become('up');
    await world.when(() => pathsUp(world) === 2, 20_000);
    await endWell(world);
  });

  it('a disk whose paths stay away is removed after the latency, and is back with one of them', async () => {
    const { world, first, second, client } = await twoPaths({
      session: { removalLatencySeconds: 10 },
    });
    for (const network of [first, second]) network.become('refused');
    for (const network of [first, second]) cut(network);
    const failed = ask(world, client, write(1));
    const beganAtMs = world.nowMs;
    await world.when(() => failed.reply !== null, 20_000);
    expect([failed.reply?.error, Math.round((failed.atMs - beganAtMs) / 100)]).toEqual([5, 100]);
    second.become('up');
    await world.when(() => eventsOf(world, 'deviceAttached').length === 1, 20_000);
    first.become('up');
    await endWell(world);
  });

  it('a new login over one path is no power loss of a disk that the other serves', async () => {
    const { world, first, client } = await twoPaths({ disk: { writeCache: 'volatile' } });
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    cut(first);
    await world.pass(100);
    await world.when(() => pathsUp(world) === 2, 20_000);
    expect((await answerTo(world, client, FLUSH)).error).toBe(0);
    expect(eventsOf(world, 'writesReplayed')).toEqual([]);
    await endWell(world);
  });
});

describe('a disk whose target port groups have states (ALUA)', () => {
  it('commands go over the group that is optimized, and follow a change that is reported', async () => {
    const { world, become, used } = await twoGroups();
    expect(await used()).toEqual([1]);
    become(1, 'nonOptimized');
    become(2, 'optimized');
    await used();
    await world.pass(1000);
    expect(await used()).toEqual([2]);
    become(2, 'nonOptimized');
    become(1, 'optimized');
    await used();
    await world.pass(1000);
    expect(await used()).toEqual([1]);
    await endWell(world);
  });

  it.each(['standby', 'unavailable', 'transitioning', 'offline'] as const)(
    'no request fails or waits if the used group is %s without a word, and it is used again after',
    async (state) => {
      const { world, become, client } = await twoGroups();
      expect((await answerTo(world, client, write(1))).error).toBe(0);
      become(1, state, false);
      const beganAtMs = world.nowMs;
      expect((await answerTo(world, client, write(2))).error).toBe(0);
      expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
      expect(world.nowMs - beganAtMs).toBeLessThan(500);
      become(1, 'optimized', false);
      await world.when(() => pathsUp(world) === 2, 20_000);
      expect((await answerTo(world, client, write(3))).error).toBe(0);
      expect(eventsOf(world, 'deviceHeld')).toEqual([]);
      await endWell(world);
    },
  );

  it('an outage begins if all groups are on standby, and ends with one of them', async () => {
    const { world, become, client } = await twoGroups();
    become(1, 'standby', false);
    become(2, 'standby', false);
    const held = ask(world, client, write(1));
    await world.pass(5000);
    expect(held.reply).toBeNull();
    become(2, 'optimized', false);
    await world.when(() => held.reply !== null, 20_000);
    expect(held.reply?.error).toBe(0);
    await endWell(world);
  });

  it('a preferred group is used rather than another that is optimized, too', async () => {
    const portGroups = new Map<number, PortGroup>([
      [1, { state: 'optimized' }],
      [2, { state: 'optimized', isPreferred: true }],
    ]);
    const { world, used } = await twoGroups({ portGroups });
    expect(await used()).toEqual([2]);
    await endWell(world);
  });
});

describe('a process that is killed with two paths', () => {
  it('a write that it left at the target does not come after one of the next process', async () => {
    const { world, client } = await twoPaths({ session: { pathPolicy: 'round-robin' } });
    let isLate = true;
    world.commands.add(({ opcode }) =>
      opcode === WRITE_10 && isLate ? { delayMs: 4000, outlivesLink: true } : undefined,
    );
    for (const at of [0, 4096]) ask(world, client, write(1, at));
    await world.pass(50);
    // The second portal does not come back for a while.
    world.kill();
    world.networks[1]!.become('blackhole');
    isLate = false;
    await world.takeOver();
    const next = world.newClient();
    for (const at of [0, 4096]) {
      expect((await answerTo(world, next, write(2, at))).error).toBe(0);
    }
    await world.pass(10_000);
    expect((await answerTo(world, next, read(0, 8192))).data.equals(block(2, 8192))).toBe(true);
    world.networks[1]!.become('up');
    await world.when(() => pathsUp(world) === 2, 90_000);
    await endWell(world);
  });
});

describe('paths that come and go at random', () => {
  /** More of them by hand: `PATH_SEEDS=600`. */
  const SEEDS = Number(process.env['PATH_SEEDS'] ?? 20);
  const GROUP_STATES: readonly PortGroup['state'][] = [
    'optimized',
    'optimized',
    'nonOptimized',
    'standby',
    'unavailable',
    'transitioning',
    'offline',
  ];

  it('no request fails, no read is stale and the medium is what was written', {
    timeout: 600_000,
  }, async () => {
    await eachSeed(SEEDS, async (random) => {
      const portGroups = new Map<number, PortGroup>();
      const world = new World({
        random,
        portals: random.whole(2, 3),
        session: {
          ...anyPaths(random),
          queueDepthMax: random.pick([1, 8, 32]),
          alua: random.pick(['implicit', 'implicit', 'explicit', 'off']),
        },
        disk: { sizeBytes: 256 << 10, writeCache: random.pick(['none', 'volatile']) },
        ...(random.chance(0.6) ? { portGroups } : {}),
        portGroupSettings: anyGroups(random),
      });
      for (const [at] of world.networks.entries()) portGroups.set(at + 1, { state: 'optimized' });
      await world.start();
      world.node.faults.isResetToldToAsker = random.chance(0.5);
      const user = new BlockUser(world, random);
      // Some writes are late, and are done although their link has gone.
      world.commands.add(({ opcode }) =>
        opcode === WRITE_10 && random.chance(0.05)
          ? { delayMs: random.spread(1, 8000), outlivesLink: true }
          : undefined,
      );
      for (let strikes = 0; strikes < 6; strikes += 1) {
        for (let left = 60; left > 0; left -= 1) {
          user.ask();
          if (random.chance(0.3)) await world.pass(random.spread(0.1, 20));
        }
        const [tag, state] = [random.whole(1, portGroups.size), random.pick(GROUP_STATES)];
        portGroups.set(tag, { state, isPreferred: random.chance(0.2) });
        if (random.chance(0.5)) world.node.raiseAttention(TARGET_NAME, 0, GROUPS_CHANGED);
        if (random.chance(0.15)) world.restartTarget({ powerLoss: random.chance(0.7) });
        const network = random.pick([...world.networks]);
        network.become(random.pick(['refused', 'blackhole', 'unreachable']));
        if (random.chance(0.7)) cut(network);
        await world.pass(random.spread(1, 8000));
        network.become('up');
      }
      for (const [tag] of portGroups) portGroups.set(tag, { state: 'optimized' });
      if (!(await world.when(() => user.isQuiet, 900_000)))
        user.faults.push('requests have no reply');
      // Old writes that are still late come after the flush.
      return await endOfUse(world, user, { lateMs: 10_000 });
    });
  });
});
