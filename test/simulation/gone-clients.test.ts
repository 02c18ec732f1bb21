import { test } from 'vitest';
import { CellUser } from './cell-user.js';
import { eachSeed } from './each-seed.js';
import { World } from './world.js';

const SEEDS = 20;
const WRITES: readonly number[] = [0x2a, 0x8a];

/** `link`: the link goes; `busy`: the disk puts the write off; `reset`: its task is aborted. */
test.each(['link', 'busy', 'aborted'] as const)(
  'a write of a client that disconnected does not overwrite a newer one: %s',
  async (how) => {
    await eachSeed(SEEDS, async (random) => {
      const world = new World({
        random,
        disk: { writeCache: random.pick(['none', 'volatile']) },
        session: { taskTimeoutSeconds: how === 'aborted' ? 5 : 60 },
      });
      world.network.latencyMs = random.spread(0.1, 10);
      await world.start();
      let isFirst = true;
      const busyUntilMs = world.nowMs + random.spread(500, 8000);
      world.commands.add(({ opcode, lba }) => {
        if (!WRITES.includes(opcode)) return undefined;
        const wasFirst = isFirst;
        isFirst = false;
        if (how === 'busy') {
          const isPutOff = lba === 0 && world.nowMs < busyUntilMs;
          return isPutOff ? { status: 0x08 } : undefined;
        }
        return wasFirst ? 'ignore' : undefined;
      });
      const old = new CellUser(world);
      old.write(0, 1, 2);
      await world.pass(random.spread(50, 1000));
      old.leave();
      const user = new CellUser(world);
      // It may have to wait for the old one, or not; then the old one is lost or put off.
      const newer = user.write(1, 2);
      await world.pass(random.spread(50, 2000));
      if (how === 'link') world.network.current?.cut();
      await user.done(newer);
      await user.done(user.flush());
      const seen = await user.read(1);
      await world.pass(70_000);
      const now = await user.read(1);
      await world.end({ force: true });
      if (seen !== 2 || now !== 2) return `the cell read ${seen}, and ${now} later`;
      return world.faults[0] ?? null;
    });
  },
);
