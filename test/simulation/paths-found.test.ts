import { describe, expect, it } from 'vitest';
import type { PortGroup } from '../../src/target/settings.js';
import { answerTo, ask, block, endWell, newWorld, read, write } from './asked.js';
import { BlockUser, endOfUse } from './block-user.js';
import { eachSeed } from './each-seed.js';
import type { Network } from './network.js';
import {
  anyPaths,
  cut,
  eventsOf,
  firstWriteIsLate,
  pathsUp,
  refuse,
  usedPortals,
  WRITE_10,
} from './several-paths.js';
import { portalOf, TARGET_NAME, World, type WorldOptions } from './world.js';

const NEVER = new AbortController().signal;

/** A session that knows one of two portals. */
async function onePortal(options: Omit<WorldOptions, 'random'> = {}) {
  const session = { multipath: 'auto', ...options.session } as const;
  const world = await newWorld({ portals: 2, told: 1, ...options, session });
  const [first, second] = world.networks as [Network, Network];
  return { world, first, second, client: world.newClient() };
}

/** Asks for other portals, and waits until a path over each can be used. */
async function found(world: World, paths = 2): Promise<void> {
  await world.until(world.stack.pathSources.find(NEVER), 20_000);
  await world.when(() => pathsUp(world) === paths, 20_000);
  expect(pathsUp(world)).toBe(paths);
}

describe('a portal of another group that a discovery tells', () => {
  it('no request fails or is held if the first portal is gone', async () => {
    const { world, first, client } = await onePortal();
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    await found(world);
    refuse(first);
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    first.become('up');
    await world.when(() => pathsUp(world) === 2, 20_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    await endWell(world);
    expect(world.node.sessions.length).toBe(0);
  });

  it('a write that was under way before it was found does not come after a newer one', async () => {
    const { world, first, client } = await onePortal();
    firstWriteIsLate(world, 5000);
    const late = ask(world, client, write(1));
    await world.pass(50);
    await found(world);
    expect(late.reply).toBeNull();
    refuse(first);
    await world.when(() => late.reply !== null, 20_000);
    expect(late.reply?.error).toBe(0);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    await world.pass(10_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    first.become('up');
    await endWell(world);
  });

  it('requests go over it only if the named portal cannot be used, or is in a worse state', async () => {
    const portGroups = new Map<number, PortGroup>([
      [1, { state: 'optimized' }],
      [2, { state: 'optimized' }],
    ]);
    const { world, first, client } = await onePortal({
      portGroups,
      session: { pathPolicy: 'round-robin' },
    });
    await found(world);
    for (let index = 0; index < 4; index += 1) {
      expect(await usedPortals(world, client)).toEqual([1]);
    }
    portGroups.set(1, { state: 'nonOptimized' });
    await world.pass(12_000);
    expect(await usedPortals(world, client)).toEqual([2]);
    portGroups.set(1, { state: 'optimized' });
    await world.pass(12_000);
    expect(await usedPortals(world, client)).toEqual([1]);
    refuse(first);
    expect(await usedPortals(world, client)).toEqual([2]);
    first.become('up');
    await world.when(() => pathsUp(world) === 2, 20_000);
    await endWell(world);
  });

  it('nothing changes if it is never reached, and it is tried at a growing pause', async () => {
    const { world, first, second, client } = await onePortal();
    second.become('unreachable');
    await world.until(world.stack.pathSources.find(NEVER), 20_000);
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    cut(first);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    expect(eventsOf(world, 'deviceHeld').length).toBe(1);
    await world.pass(3_600_000);
    expect(second.opened).toBeGreaterThan(50);
    expect(second.opened).toBeLessThan(80);
    const warnings = eventsOf(world, 'warning').filter(
      (event) => event.event === 'warning' && event.message.startsWith('path 192.0.2.2:3260:'),
    );
    // No option and no login named this portal.
    expect(warnings).toEqual([]);
    second.become('up');
    await world.when(() => pathsUp(world) === 2, 70_000);
    refuse(first);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    first.become('up');
    await endWell(world);
  });

  it('a portal of the same group is no path', async () => {
    const { world } = await onePortal();
    const target = world.node.targets.get(TARGET_NAME)!;
    target.portals = target.portals!.map((portal) => ({ ...portal, portalGroupTag: 1 }));
    await world.until(world.stack.pathSources.find(NEVER), 20_000);
    expect(world.stack.paths).toBeNull();
    await endWell(world);
  });
});

describe('a portal to which an operator logs in while a disk is served', () => {
  it('an outage of the other portal ends, and old writes do not come after newer ones', async () => {
    const { world, first, second, client } = await onePortal();
    world.commands.add(({ opcode, portalGroupTag }) =>
      opcode === WRITE_10 && portalGroupTag === 1
        ? { delayMs: 20_000, outlivesLink: true }
        : undefined,
    );
    const late = ask(world, client, write(1));
    await world.pass(50);
    refuse(first);
    await world.pass(2000);
    await world.until(world.stack.pathSources.login(portalOf(second)), 20_000);
    await world.when(() => late.reply !== null, 20_000);
    expect(late.reply?.error).toBe(0);
    expect((await answerTo(world, client, write(2))).error).toBe(0);
    await world.pass(60_000);
    expect((await answerTo(world, client, read())).data.equals(block(2))).toBe(true);
    first.become('up');
    await endWell(world);
  });

  it('nothing changes if it refuses the login', async () => {
    const { world, second, client } = await onePortal();
    second.become('refused');
    const login = world.stack.pathSources.login(portalOf(second));
    await expect(world.until(login, 20_000)).rejects.toMatchObject({ errno: 'ECONNREFUSED' });
    expect(world.stack.paths).toBeNull();
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    await endWell(world);
  });

  it('a logout of it alone ends no request', async () => {
    const { world, second, client } = await onePortal({ session: { pathPolicy: 'round-robin' } });
    await world.until(world.stack.pathSources.login(portalOf(second)), 20_000);
    await world.when(() => pathsUp(world) === 2, 20_000);
    const asked = [0, 1, 2, 3].map((at) => ask(world, client, write(1, at * 4096)));
    const member = world.stack.paths!.members[1]!;
    await world.until(world.stack.pathSources.remove(member), 20_000);
    await world.when(() => asked.every(({ reply }) => reply !== null), 20_000);
    expect(asked.map(({ reply }) => reply?.error)).toEqual([0, 0, 0, 0]);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    expect(world.node.sessions.length).toBe(1);
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    await endWell(world);
  });
});

describe('a process that is killed with a path that was found', () => {
  it('the next one has both paths with the same ISIDs, and old writes of neither come late', async () => {
    const { world, first, second, client } = await onePortal();
    await found(world);
    refuse(first);
    await answerTo(world, client, write(1));
    world.commands.add(({ opcode }) =>
      opcode === WRITE_10 && world.nowMs < 5000 ? { delayMs: 8000, outlivesLink: true } : undefined,
    );
    ask(world, client, write(2));
    await world.pass(50);
    world.kill();
    first.become('up');
    second.become('blackhole');
    await world.takeOver();
    const next = world.newClient();
    expect((await answerTo(world, next, write(3))).error).toBe(0);
    await world.pass(30_000);
    expect((await answerTo(world, next, read())).data.equals(block(3))).toBe(true);
    second.become('up');
    await world.when(() => pathsUp(world) === 2, 90_000);
    expect([pathsUp(world), world.isids.size]).toEqual([2, 2]);
    await endWell(world);
  });
});

describe('paths that are found at random', () => {
  /** More of them by hand: `PATH_SEEDS=600`. */
  const SEEDS = Number(process.env['PATH_SEEDS'] ?? 10);

  it('no request fails, no read is stale and the medium is what was written', {
    timeout: 600_000,
  }, async () => {
    await eachSeed(SEEDS, async (random) => {
      const world = new World({
        random,
        portals: random.whole(2, 3),
        told: 1,
        session: { ...anyPaths(random), queueDepthMax: random.pick([1, 8, 32]) },
        disk: { sizeBytes: 256 << 10, writeCache: random.pick(['none', 'volatile']) },
      });
      await world.start();
      const user = new BlockUser(world, random);
      world.commands.add(({ opcode }) =>
        opcode === WRITE_10 && random.chance(0.05)
          ? { delayMs: random.spread(1, 8000), outlivesLink: true }
          : undefined,
      );
      const finding = random.whole(0, 3);
      for (let strikes = 0; strikes < 5; strikes += 1) {
        for (let left = 60; left > 0; left -= 1) {
          user.ask();
          if (random.chance(0.3)) await world.pass(random.spread(0.1, 20));
          if (strikes === finding && left === 30) void world.stack.pathSources.find(NEVER);
        }
        if (random.chance(0.2)) world.restartTarget({ powerLoss: random.chance(0.7) });
        const network = random.pick([...world.networks]);
        network.become(random.pick(['refused', 'blackhole', 'unreachable']));
        if (random.chance(0.7)) cut(network);
        await world.pass(random.spread(1, 8000));
        network.become('up');
      }
      if (!(await world.when(() => user.isQuiet, 900_000)))
        user.faults.push('requests have no reply');
      return await endOfUse(world, user, { lateMs: 10_000 });
    });
  });
});
