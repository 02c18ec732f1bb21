import { describe, expect, it } from 'vitest';
import { answerTo, ask, block, endWell, read, write } from './asked.js';
import { cut, eventsOf, pathsUp, severalPaths, WRITE_10 } from './several-paths.js';

const TWO_SESSIONS = { session: { sessionsPerPortal: 2, pathPolicy: 'round-robin' } } as const;

describe('a disk with two sessions to one portal', () => {
  it('each session has an ISID of its own, and commands go over both', async () => {
    const { world, client } = await severalPaths(1, TWO_SESSIONS);
    expect([pathsUp(world), world.isids.size, world.node.sessions.length]).toEqual([2, 2, 2]);
    const used = new Set<string>();
    world.commands.add(({ opcode, isid }) => {
      if (opcode === WRITE_10) used.add(isid);
      return undefined;
    });
    for (const at of [0, 4096]) expect((await answerTo(world, client, write(1, at))).error).toBe(0);
    expect(used.size).toBe(2);
    await endWell(world);
    expect(world.node.sessions.length).toBe(0);
  });

  it('no request fails or is held if the connection of one of them ends', async () => {
    const { world, networks, client } = await severalPaths(1, TWO_SESSIONS);
    for (let round = 0; round < 4; round += 1) {
      const asked = [0, 1, 2, 3].map((at) => ask(world, client, write(round, at * 4096)));
      const [first] = networks[0]!.links;
      first?.cut();
      await world.when(() => asked.every(({ reply }) => reply !== null), 20_000);
      expect(asked.map(({ reply }) => reply?.error)).toEqual([0, 0, 0, 0]);
      const found = await answerTo(world, client, read(0, 16_384));
      expect(found.data.equals(block(round, 16_384))).toBe(true);
      await world.when(() => pathsUp(world) === 2, 100_000);
    }
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    await endWell(world);
  });

  it('a process that takes over has the same two sessions, and the target ends the old ones', async () => {
    const { world, client } = await severalPaths(1, TWO_SESSIONS);
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    world.kill();
    await world.takeOver();
    await world.when(() => pathsUp(world) === 2, 20_000);
    expect([world.isids.size, world.node.sessions.length]).toEqual([2, 2]);
    expect((await answerTo(world, world.newClient(), read())).data.equals(block(1))).toBe(true);
    await endWell(world);
  });

  it('one outage begins if the portal is gone, and ends with either session', async () => {
    const { world, networks, client } = await severalPaths(1, TWO_SESSIONS);
    networks[0]!.become('refused');
    cut(networks[0]!);
    const held = ask(world, client, write(1));
    await world.pass(4000);
    expect(held.reply).toBeNull();
    networks[0]!.become('up');
    await world.when(() => held.reply !== null, 20_000);
    expect(held.reply?.error).toBe(0);
    expect(eventsOf(world, 'deviceHeld').length).toBe(1);
    await endWell(world);
  });
});
