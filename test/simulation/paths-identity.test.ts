import { describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import type { PortGroup } from '../../src/target/settings.js';
import { answerTo, ask, block, endWell, FLUSH, newWorld, read, write } from './asked.js';
import {
  cut,
  eventsOf,
  pathsUp,
  READ_10,
  refuse,
  severalPaths,
  twoGroups,
  twoPaths,
  WRITE_10,
} from './several-paths.js';
import { TARGET_NAME, type World } from './world.js';

const SERVICE_ACTION_IN_16 = 0x9e;
const POWER_ON = { asc: 0x29, ascq: 0x00 };
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };

/** What the session over the second portal finds at its LUNs. */
function lunsOfSecond(world: World): Map<number, TargetDisk> {
  const session = world.node.sessions[1]!;
  const luns = new Map<number, TargetDisk>();
  Object.assign(session, { target: { ...session.target, luns } });
  return luns;
}

function countProbes(world: World): () => number {
  let probes = 0;
  world.commands.add(({ opcode, portalGroupTag }) => {
    if (opcode === SERVICE_ACTION_IN_16 && portalGroupTag === 1) probes += 1;
    return undefined;
  });
  return () => probes;
}

describe('another disk behind one of several paths', () => {
  it.each([
    ['at once', false],
    ['after a while without any', true],
  ])('no write goes to a LUN that becomes another disk %s', async (_when, isGoneFirst) => {
    const { world, client } = await twoPaths({ session: { pathPolicy: 'round-robin' } });
    expect((await answerTo(world, client, write(1, 0, 65_536))).error).toBe(0);
    const other = TargetDisk.ram({ serial: 'WRONG', sizeBytes: 1 << 20 });
    const luns = lunsOfSecond(world);
    if (!isGoneFirst) luns.set(0, other);
    world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
    for (let index = 0; index < 4; index += 1) await answerTo(world, client, read());
    if (isGoneFirst) {
      await world.pass(12_000);
      luns.set(0, other);
    }
    await world.pass(20_000);
    for (let index = 0; index < 16; index += 1) {
      expect((await answerTo(world, client, write(2, index * 4096))).error).toBe(0);
    }
    expect(other.read(0, 65_536).every((byte) => byte === 0)).toBe(true);
    expect(pathsUp(world)).toBe(1);
    expect(eventsOf(world, 'deviceRemoved')).toEqual([]);
    await endWell(world);
  });

  it('a port that was on standby is used only after the disk was read over it', async () => {
    const { world, become, client } = await twoGroups();
    become(2, 'standby');
    await world.when(() => pathsUp(world) === 1, 20_000);
    const other = TargetDisk.ram({ serial: 'WRONG', sizeBytes: 1 << 20 });
    lunsOfSecond(world).set(0, other);
    become(1, 'nonOptimized');
    become(2, 'optimized');
    for (let index = 0; index < 16; index += 1) {
      expect((await answerTo(world, client, write(2, index * 4096))).error).toBe(0);
      await world.pass(500);
    }
    expect(other.read(0, 65_536).every((byte) => byte === 0)).toBe(true);
    await endWell(world);
  });

  it('a LUN that is missing over one path is no news of the disk', async () => {
    const { world, client } = await twoPaths({
      disk: { writeCache: 'volatile' },
      session: { retainWrites: 'never' },
    });
    lunsOfSecond(world);
    const probes = countProbes(world);
    for (let index = 0; index < 12; index += 1) {
      expect((await answerTo(world, client, write(1))).error).toBe(0);
      await world.pass(5100);
      expect((await answerTo(world, client, FLUSH)).error).toBe(0);
    }
    expect(probes()).toBeLessThan(3);
    await endWell(world);
  });

  it('a path on standby does not make a healthy disk wait', async () => {
    const portGroups = new Map<number, PortGroup>([
      [1, { state: 'optimized' }],
      [2, { state: 'standby' }],
    ]);
    const world = await newWorld({ portals: 2, portGroups, session: { multipath: 'auto' } });
    await world.pass(10_000);
    const probes = countProbes(world);
    await world.pass(60_000);
    expect(probes()).toBeLessThan(3);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    await endWell(world);
  });
});

describe('a power loss of a disk with several paths', () => {
  it('no acknowledged write is lost if one path reports it and the other one is silent', async () => {
    const { world, first, second, client } = await twoPaths({
      disk: { writeCache: 'volatile' },
      session: { noopIntervalSeconds: 5, noopTimeoutSeconds: 5 },
    });
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    second.become('blackhole');
    cut(first);
    world.node.restart({ powerLoss: true });
    await world.pass(30_000);
    expect((await answerTo(world, client, FLUSH)).error).toBe(0);
    world.disk.powerLoss(() => false);
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    second.become('up');
    await endWell(world);
  });

  it.each([2, 3])(
    'no write is lost that a slow path acknowledges after a fast one of %i told of it',
    async (portals) => {
      const { world, networks, client } = await severalPaths(portals, {
        disk: { writeCache: 'volatile' },
        session: { pathPolicy: 'least-queue' },
      });
      let hasArrived = false;
      world.commands.add(({ opcode, lba }) => {
        if (opcode === WRITE_10) hasArrived = true;
        return opcode === READ_10 && (lba ?? 0) >= 1000 ? { delayMs: 50 } : undefined;
      });
      networks[portals - 1]!.latencyMs = 500;
      await world.pass(7000);
      for (let path = 1; path < portals; path += 1) ask(world, client, read((999 + path) * 512));
      const slow = ask(world, client, write(1));
      await world.when(() => hasArrived, 10_000);
      await world.pass(2);
      world.disk.powerLoss(() => false);
      world.node.raiseAttention(TARGET_NAME, 0, POWER_ON);
      expect((await answerTo(world, client, read(65_536))).error).toBe(0);
      await world.when(() => slow.reply !== null, 5000);
      expect((await answerTo(world, client, FLUSH)).error).toBe(0);
      world.disk.powerLoss(() => false);
      expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
      await endWell(world);
    },
  );

  it('a process that takes over finds it over the path that is left', async () => {
    const { world, first, client } = await twoPaths({ disk: { writeCache: 'volatile' } });
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    world.kill();
    first.become('blackhole');
    world.node.restart({ powerLoss: true });
    await world.takeOver();
    const next = world.newClient();
    expect((await answerTo(world, next, read())).data.equals(block(1))).toBe(true);
    expect((await answerTo(world, next, write(2, 4096))).error).toBe(0);
    await endWell(world);
  });
});

describe('a disk with several paths that is not ready for a while', () => {
  it('a disk without port groups that is becoming ready for three seconds is used again', async () => {
    const { world, client } = await twoPaths();
    const ready = world.commands.addReport(() => ({ sense: { key: 2, asc: 4, ascq: 1 } }));
    const asked = ask(world, client, write(1));
    await world.pass(3000);
    ready();
    const fromMs = world.nowMs;
    await world.when(() => asked.reply !== null, 100_000);
    expect([asked.reply?.error, asked.atMs - fromMs < 6000]).toEqual([0, true]);
    await endWell(world);
  });

  it('a standby of all ports that a check meets is over soon, however rarely paths are checked', async () => {
    const { world, first, client } = await twoPaths({ session: { pathCheckSeconds: 120 } });
    cut(first);
    await world.when(() => pathsUp(world) === 1, 10_000);
    await world.when(() => pathsUp(world) === 2, 10_000);
    await world.pass(115_000);
    const back = world.commands.addReport(() => ({ sense: { key: 2, asc: 4, ascq: 0x0b } }));
    await world.pass(13_000);
    const asked = ask(world, client, write(1));
    await world.pass(100);
    back();
    const fromMs = world.nowMs;
    await world.when(() => asked.reply !== null, 100_000);
    expect([asked.reply?.error, asked.atMs - fromMs < 6000]).toEqual([0, true]);
    await endWell(world);
  });

  it.each([0, 1400, 2800])(
    'an idle disk whose ports all went on standby without a word serves again (after %i ms)',
    async (restMs) => {
      const portGroups = new Map<number, PortGroup>([
        [1, { state: 'optimized' }],
        [2, { state: 'optimized' }],
      ]);
      const { world, first, become, client } = await twoGroups({ portGroups });
      cut(first);
      await world.when(() => pathsUp(world) === 1, 10_000);
      await world.when(() => pathsUp(world) === 2, 10_000);
      for (const tag of [1, 2]) become(tag, 'standby', false);
      await world.pass(12_000 + restMs);
      const asked = ask(world, client, write(1));
      await world.pass(500);
      for (const tag of [1, 2]) become(tag, 'optimized', false);
      await world.when(() => asked.reply !== null, 100_000);
      await world.pass(20_000);
      expect([asked.reply?.error, (await answerTo(world, client, write(2))).error]).toEqual([0, 0]);
      await endWell(world);
    },
  );
});

describe('a path that fails again and again', () => {
  it('a path that fails three times in a minute is not trusted until it has held that long', async () => {
    const { world, first, client } = await twoPaths();
    for (let times = 0; times < 3; times += 1) {
      refuse(first);
      await world.pass(1000);
      first.become('up');
      await world.when(() => pathsUp(world) === 2, 20_000);
    }
    const portals = async () => {
      const tags: number[] = [];
      const back = world.commands.add(({ opcode, portalGroupTag }) => {
        if (opcode === READ_10) tags.push(portalGroupTag);
        return undefined;
      });
      await answerTo(world, client, read());
      back();
      return tags;
    };
    expect(await portals()).toEqual([2]);
    await world.pass(50_000);
    expect(world.stack.paths?.unitOf(0)?.paths[0]?.path.isSuspect).toBe(true);
    await world.pass(12_000);
    expect(world.stack.paths?.unitOf(0)?.paths[0]?.path.isSuspect).toBe(false);
    // It is as good as the other one again, and there is no reason to change.
    refuse(world.networks[1]!);
    expect(await portals()).toEqual([1]);
    await endWell(world);
  });
});
