import { describe, expect, it } from 'vitest';
import { ask, block, FLUSH, read, write } from './asked.js';
import { eachSeed } from './each-seed.js';
import { anyPaths, cut, pathsUp, WRITE_10 } from './several-paths.js';
import { World } from './world.js';

/** More of them by hand: `GHOST_SEEDS=10000`. */
const SEEDS = Number(process.env['GHOST_SEEDS'] ?? 100);

describe('a write that is late on a path that is lost', () => {
  it('a late write is never done after its repetition and a newer write, whenever what happens', {
    timeout: 3_600_000,
  }, async () => {
    let ghosts = 0;
    await eachSeed(SEEDS, async (random) => {
      const world = new World({
        random,
        portals: random.whole(2, 3),
        session: anyPaths(random),
        disk: { sizeBytes: 64 << 10, writeCache: random.pick(['none', 'volatile']) },
      });
      await world.start();
      await world.when(() => pathsUp(world) === world.networks.length, 10_000);
      for (const network of world.networks) network.latencyMs = random.spread(0.1, 30);
      const client = world.newClient();
      const lateUntilMs = world.nowMs + 400;
      world.commands.add(({ opcode }) => {
        if (opcode !== WRITE_10 || world.nowMs > lateUntilMs || random.chance(0.3))
          return undefined;
        ghosts += 1;
        return { delayMs: random.spread(200, 5000), outlivesLink: true };
      });
      // Some resets are refused, so that the old writes live for some seconds.
      world.node.faults.onTaskManagement = () => (random.chance(0.8) ? 5 : undefined);
      world.node.faults.isResetToldToAsker = random.chance(0.5);
      const blocks = [0, 4096, 8192, 12_288];
      const first = blocks.map((offset) => ask(world, client, write(1, offset)));
      await world.pass(random.spread(10, 200));
      for (const network of world.networks) {
        if (random.chance(0.5)) continue;
        network.become(random.pick(['refused', 'blackhole']));
        if (random.chance(0.7)) cut(network);
        world.clock.at(world.nowMs + random.spread(1000, 15_000), () => network.become('up'));
      }
      const told = (asked: { readonly reply: unknown }) => asked.reply !== null;
      if (!(await world.when(() => first.every(told), 300_000))) return 'a write has no reply';
      const second = blocks.map((offset) => ask(world, client, write(2, offset)));
      const flush = ask(world, client, FLUSH);
      if (!(await world.when(() => second.every(told), 300_000))) return 'a write has no reply';
      await world.when(() => told(flush), 300_000);
      await world.pass(30_000);
      const last = ask(world, client, read(0, 16_384));
      await world.when(() => told(last), 300_000);
      const isNewest = last.reply?.data.equals(block(2, 16_384)) === true;
      const failed = [...first, ...second, flush, last].find(({ reply }) => reply?.error !== 0);
      await world.end({ force: true });
      if (failed !== undefined) return `a request failed with ${failed.reply?.error}`;
      return isNewest ? (world.faults[0] ?? null) : 'the disk holds an older write';
    });
    expect(ghosts).toBeGreaterThan(SEEDS);
  });
});
