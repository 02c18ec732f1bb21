import { expect, test } from 'vitest';
import { CellUser } from './cell-user.js';
import { Seeded } from './seeded.js';
import { World } from './world.js';

const MIB = 1 << 20;
const CELLS_OF_MIB = MIB / 4096;

test('a read whose data comes in segments of 16 bytes is answered', {
  timeout: 120_000,
}, async () => {
  const world = new World({
    random: new Seeded(1),
    disk: { sizeBytes: 32 * MIB },
    session: { noopIntervalSeconds: 0 },
  });
  await world.start();
  world.disk.write(0, Buffer.alloc(32 * MIB, 0x5a));
  world.node.faults.dataIn = { segmentBytesMax: 16 };
  const user = new CellUser(world);
  // More than a million segments.
  const reply = await user.done(user.ask(0, 17 * CELLS_OF_MIB), 600_000);
  expect(reply.error).toBe(0);
  expect(reply.data.equals(Buffer.alloc(17 * MIB, 0x5a))).toBe(true);
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
});
