import { expect, test } from 'vitest';
import { answerTo, ask, block, EIO, endWell, newWorld, read, write } from './asked.js';
import { COMMAND } from './model-client.js';
import type { World } from './world.js';

const [READ10, WRITE10, WRITE_SAME16, UNMAP] = [0x28, 0x2a, 0x93, 0x42];
/** All data has to be asked for by the target. */
const NO_UNASKED_DATA = { session: { initialR2T: true, immediateData: false } } as const;
const ZEROES = { command: COMMAND.writeZeroes, flags: 0, offset: 0, length: 4096 } as const;
const TRIM = { command: COMMAND.trim, flags: 0, offset: 0, length: 4096 } as const;

/** Commands of `opcode` do nothing and report GOOD with `residual`, `times` times. */
function lies(world: World, opcode: number, residual: number, times = Number.POSITIVE_INFINITY) {
  const seen = { commands: 0 };
  world.node.faults.onCommand = (command) => {
    if (command.opcode !== opcode) return undefined;
    seen.commands += 1;
    return seen.commands > times ? undefined : { goodWithResidual: residual };
  };
  return seen;
}

const ioErrors = (world: World) =>
  world.events.flatMap((event) => (event.event === 'ioError' ? [event.reason] : []));

test('a write whose data the target never requested is not acknowledged', async () => {
  const world = await newWorld(NO_UNASKED_DATA);
  const client = world.newClient();
  const seen = lies(world, WRITE10, 0);
  expect((await answerTo(world, client, write(0xbb))).error).toBe(EIO);
  expect(seen.commands).toBe(5);
  expect(ioErrors(world)).toEqual([expect.stringMatching(/asked for 0 of 4096 bytes.*5 times/)]);
  world.node.faults.onCommand = undefined;
  await world.pass(10_000);
  expect((await answerTo(world, client, write(0xbb))).error).toBe(0);
  expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
  await endWell(world);
});

test('a write whose data the target once did not request is written', async () => {
  const world = await newWorld(NO_UNASKED_DATA);
  const client = world.newClient();
  lies(world, WRITE10, 0, 1);
  expect((await answerTo(world, client, write(0xbb))).error).toBe(0);
  expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
  await endWell(world);
});

test.each([
  ['by WRITE SAME', true, WRITE_SAME16, 512],
  ['as data', false, WRITE10, 4096],
] as const)(
  'zeros written %s with a residual of everything are not acknowledged',
  async (_how, writesSame, opcode, residual) => {
    const world = await newWorld();
    const client = world.newClient();
    expect((await answerTo(world, client, write(0xbb))).error).toBe(0);
    const seen = lies(world, opcode, residual);
    if (!writesSame) {
      const { onCommand } = world.node.faults;
      world.node.faults.onCommand = (command) =>
        command.opcode === WRITE_SAME16
          ? { sense: { key: 5, asc: 0x20, ascq: 0 } }
          : onCommand?.(command);
    }
    expect((await answerTo(world, client, ZEROES)).error).toBe(EIO);
    expect(seen.commands).toBe(5);
    expect(ioErrors(world)).toEqual([expect.stringMatching(/took 0 of/)]);
    expect(world.disk.read(0, 4096).equals(block(0xbb))).toBe(true);
    world.node.faults.onCommand = undefined;
    await world.pass(10_000);
    expect((await answerTo(world, client, ZEROES)).error).toBe(0);
    expect(world.disk.read(0, 4096).equals(block(0))).toBe(true);
    await endWell(world);
  },
);

test.each([
  ['a write', WRITE10, write(0xbb), /took 3584 of 4096 bytes and reported success, 5 times/],
  ['a read', READ10, read(), /returned 0 of 4096 bytes and reported success, 5 times/],
] as const)(
  '%s with a residual at every try ends with EIO and an event, and is not repeated at full speed',
  async (_what, opcode, request, words) => {
    const world = await newWorld();
    const client = world.newClient();
    const seen = lies(world, opcode, 512);
    const asked = ask(world, client, request);
    const beganAtMs = world.nowMs;
    await world.when(() => asked.reply !== null, 60_000);
    expect(asked.reply?.error).toBe(EIO);
    expect(seen.commands).toBe(5);
    expect(asked.atMs - beganAtMs).toBeGreaterThan(500);
    expect(ioErrors(world)).toEqual([expect.stringMatching(words)]);
    await endWell(world);
  },
);

test('a trim whose blocks the disk leaves succeeds, for it is advice', async () => {
  const world = await newWorld();
  lies(world, UNMAP, 24);
  expect((await answerTo(world, world.newClient(), TRIM)).error).toBe(0);
  await endWell(world);
});
