/** A LUN that its target reports as unable to serve, while the session and its neighbours live. */
import { expect, test } from 'vitest';
import type { CommandFault } from '../../src/target/faults.js';
import { ask, block, EIO, endWell as end, FLUSH, newWorld, read, write } from './asked.js';
import { eachSeed } from './each-seed.js';
import { TARGET_NAME, World } from './world.js';

const MIB = 1 << 20;
/** INQUIRY and REPORT LUNS, which a unit answers in any state (SPC-4 §6.6, §6.33). */
const ALWAYS_ANSWERED: readonly number[] = [0x12, 0xa0];
const TEST_UNIT_READY = 0x00;
const READS_AND_WRITES: readonly number[] = [0x28, 0x2a, 0x88, 0x8a];

const sense = (key: number, asc: number, ascq: number) => ({ sense: { key, asc, ascq } });
const BECOMING_READY = sense(0x02, 0x04, 0x01);
const TRANSITION = sense(0x02, 0x04, 0x0a);
const NO_LUN = sense(0x05, 0x25, 0x00);

const ABSENCES: readonly (readonly [name: string, answer: Exclude<CommandFault, undefined>])[] = [
  ['becoming ready (02/04/01)', BECOMING_READY],
  ['changing its access state (02/04/0A)', TRANSITION],
  ['on standby (02/04/0B)', sense(0x02, 0x04, 0x0b)],
  ['unavailable (02/04/0C)', sense(0x02, 0x04, 0x0c)],
  ['offline (02/04/12)', sense(0x02, 0x04, 0x12)],
  ['without a medium (02/3A/00)', sense(0x02, 0x3a, 0x00)],
  ['not supported (05/25/00)', NO_LUN],
];

/** LUN 0 answers so; the returned function ends that. */
function goesAway(world: World, answer: CommandFault, opcodes?: readonly number[]): () => void {
  return world.commands.add(({ lun, opcode }) => {
    if (lun !== 0 || ALWAYS_ANSWERED.includes(opcode)) return undefined;
    return opcodes === undefined || opcodes.includes(opcode) ? answer : undefined;
  });
}

test.each(ABSENCES)(
  'no request fails if a LUN is %s for 15 s, and its neighbour is served meanwhile',
  async (_name, answer) => {
    const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB } });
    const [client, neighbour] = [world.newClient(0), world.newClient(1)];
    const back = goesAway(world, answer);
    const asked = [write(1), write(2, 8192), read(16_384), FLUSH].map((one) =>
      ask(world, client, one),
    );
    await world.pass(1000);
    const beside = ask(world, neighbour, write(7));
    const beganAtMs = world.nowMs;
    await world.when(() => beside.reply !== null, 5000);
    expect(beside.reply?.error).toBe(0);
    expect(beside.atMs - beganAtMs).toBeLessThan(500);
    await world.pass(14_000);
    expect(asked.map(({ reply }) => reply)).toEqual([null, null, null, null]);
    expect(world.stack.luns[0]?.state).toBe('away');
    expect(world.stack.luns[1]?.state).toBe('serving');
    back();
    await world.pass(6000);
    expect(asked.map(({ reply }) => reply?.error)).toEqual([0, 0, 0, 0]);
    expect(world.disk.read(0, 4096).equals(block(1))).toBe(true);
    expect(world.disk.read(8192, 4096).equals(block(2))).toBe(true);
    expect(world.events.filter(({ event }) => event === 'deviceReleased')).toHaveLength(1);
    await end(world);
  },
);

test.each(ABSENCES)(
  'requests to a LUN that stays %s fail when the removal latency has passed, neither before nor after',
  async (_name, answer) => {
    for (const removalLatencySeconds of [10, 100]) {
      const world = await newWorld({ session: { removalLatencySeconds } });
      const back = goesAway(world, answer);
      const sentAtMs = world.nowMs;
      const asked = ask(world, world.newClient(), write(1));
      await world.when(() => asked.reply !== null, 200_000);
      expect(asked.reply?.error).toBe(EIO);
      expect(asked.atMs - sentAtMs).toBeGreaterThanOrEqual(removalLatencySeconds * 1000);
      expect(asked.atMs - sentAtMs).toBeLessThan(removalLatencySeconds * 1000 + 500);
      back();
      expect(await world.when(() => world.exporter.isExported, 10_000)).toBe(true);
      await end(world);
    }
  },
);

test('a LUN that changes its access state for 3 s holds its requests for less than 5 s', async () => {
  const world = await newWorld();
  const back = goesAway(world, TRANSITION);
  const sentAtMs = world.nowMs;
  const asked = ask(world, world.newClient(), write(1));
  await world.pass(3000);
  back();
  await world.when(() => asked.reply !== null, 60_000);
  expect(asked.reply?.error).toBe(0);
  expect(asked.atMs - sentAtMs).toBeLessThan(5000);
  await end(world);
});

test('a LUN that is ready for TEST UNIT READY and for no write is away for one removal latency', async () => {
  const world = await newWorld({ session: { removalLatencySeconds: 20 } });
  let writes = 0;
  const back = world.commands.add(({ opcode }) => {
    if (!READS_AND_WRITES.includes(opcode)) return undefined;
    writes += 1;
    return TRANSITION;
  });
  const sentAtMs = world.nowMs;
  const asked = ask(world, world.newClient(), write(1));
  await world.when(() => asked.reply !== null, 200_000);
  expect(asked.reply?.error).toBe(EIO);
  expect(asked.atMs - sentAtMs).toBeGreaterThanOrEqual(20_000);
  expect(asked.atMs - sentAtMs).toBeLessThan(20_500);
  expect(writes).toBeLessThan(20);
  back();
  await end(world);
});

test('no request fails if EqualLogic answers 05/25 between its request to log out and the logout', async () => {
  const world = await newWorld({ negotiation: { defaultTime2Wait: 0 } });
  const back = goesAway(world, NO_LUN);
  const client = world.newClient();
  const asked = [write(1), write(2, 8192), read(16_384)].map((one) => ask(world, client, one));
  for (const connection of world.node.connections) {
    connection.sendAsync({ event: 1, parameters: [0, 0, 3] });
  }
  await world.when(() => world.node.connections.length === 0, 5000);
  back();
  await world.pass(10_000);
  expect(asked.map(({ reply }) => reply?.error)).toEqual([0, 0, 0]);
  expect(world.disk.read(0, 4096).equals(block(1))).toBe(true);
  expect(world.disk.read(8192, 4096).equals(block(2))).toBe(true);
  await end(world);
});

test('a held write does not reach another disk that is at the LUN after it was not supported (05/25)', async () => {
  for (const identity of [{}, { serial: '', naa: '' }]) {
    const world = await newWorld({ disk: { sizeBytes: MIB, ...identity } });
    const other = await newWorld({ disk: { sizeBytes: MIB, serial: 'OTHER', ...identity } });
    const back = goesAway(world, NO_LUN);
    const asked = ask(world, world.newClient(), write(1));
    await world.pass(1000);
    world.disk.announcesChanges = false;
    other.disk.announcesChanges = false;
    world.node.targets.get(TARGET_NAME)?.luns.set(0, other.disk);
    back();
    await world.when(() => asked.reply !== null, 30_000);
    expect(asked.reply?.error).toBe(EIO);
    expect(other.disk.extent(0, MIB)).toEqual({ mapped: false, length: MIB });
    await end(other);
    await end(world);
  }
});

test('what was written is there after any number of short absences, and no request fails', async () => {
  await eachSeed(20, async (random) => {
    const world = new World({ random, luns: 2, session: { removalLatencySeconds: 30 } });
    world.network.latencyMs = random.spread(0.1, 20);
    await world.start();
    const clients = [world.newClient(0), world.newClient(0)];
    const written = new Map<number, number>();
    const errors: number[] = [];
    let back = () => {};
    for (let round = 1; round <= 40; round += 1) {
      if (random.chance(0.4)) {
        back();
        const [, answer] = random.pick(ABSENCES);
        const opcodes = random.chance(0.3) ? READS_AND_WRITES : undefined;
        back = goesAway(world, answer, opcodes);
        world.clock.at(world.nowMs + random.spread(1, 8000), back);
      }
      const offset = random.whole(0, 31) * 4096;
      const asked = ask(world, random.pick(clients), write(round, offset));
      if (!random.chance(0.5)) {
        await world.pass(random.spread(1, 300));
      } else if (!(await world.when(() => asked.reply !== null, 40_000))) {
        return `write ${round} is never answered`;
      }
      if (asked.reply !== null) {
        if (asked.reply.error !== 0) errors.push(asked.reply.error);
        else written.set(offset, round);
      } else {
        await world.when(() => asked.reply !== null, 60_000);
        written.set(offset, round);
        if (asked.reply === null) return `write ${round} is never answered`;
      }
    }
    back();
    const wrong = [...written].filter(
      ([offset, value]) => !world.disk.read(offset, 4096).equals(block(value)),
    );
    await world.end({ force: true });
    if (world.faults.length > 0) return world.faults.join('; ');
    return errors.length + wrong.length > 0 ? `errnos ${errors}, wrong at ${wrong}` : null;
  });
});

test('a unit attention while a LUN is away does not make it serve before it is ready', async () => {
  const world = await newWorld();
  const back = goesAway(world, BECOMING_READY);
  const asked = ask(world, world.newClient(), write(1));
  await world.pass(2000);
  world.node.raiseAttention(TARGET_NAME, 0, { asc: 0x2a, ascq: 0x06 });
  await world.pass(5000);
  expect(asked.reply).toBeNull();
  back();
  await world.pass(6000);
  expect(asked.reply?.error).toBe(0);
  await end(world);
});

test('a LUN that is away for 50 s is probed fewer than 20 times', async () => {
  const world = await newWorld();
  let probes = 0;
  const back = world.commands.add(({ opcode }) => {
    if (opcode === TEST_UNIT_READY) probes += 1;
    return ALWAYS_ANSWERED.includes(opcode) ? undefined : BECOMING_READY;
  });
  ask(world, world.newClient(), write(1));
  await world.pass(50_000);
  expect(probes).toBeGreaterThan(8);
  expect(probes).toBeLessThan(20);
  back();
  await end(world);
});
