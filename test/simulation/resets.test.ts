import { expect, test } from 'vitest';
import { COMMAND, type ModelReply } from './model-client.js';
import { Seeded } from './seeded.js';
import { World } from './world.js';

const BLOCK_BYTES = 4096;
const WRITE_10 = 0x2a;
const [ABORT_TASK, NOT_SUPPORTED] = [1, 5];

const blockOf = (value: number) => Buffer.alloc(BLOCK_BYTES, value);

/** A world of one client, with a note of the writes that the target has been sent. */
async function newWorld() {
  const session = { taskTimeoutSeconds: 5, abortTimeoutSeconds: 10 };
  const world = new World({ random: new Seeded(1), session });
  await world.start();
  const client = world.newClient();
  const send = (command: number, data?: Buffer): { reply: ModelReply | null } => {
    const asked: { reply: ModelReply | null } = { reply: null };
    const length = command === COMMAND.flush ? 0 : BLOCK_BYTES;
    const request = { command, flags: 0, offset: 0, length, ...(data ? { data } : {}) };
    client.send(request, (reply) => {
      asked.reply = reply;
    });
    return asked;
  };
  return { world, send };
}

async function end(world: World): Promise<void> {
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
}

test('a write submitted while a reset is pending is done once, and never after newer data', async () => {
  const { world, send } = await newWorld();
  const { faults } = world.node;
  let writes = 0;
  faults.onCommand = ({ opcode }) => {
    if (opcode !== WRITE_10) return undefined;
    writes += 1;
    if (writes === 1) return 'ignore';
    // The second one takes longer than the reset's answer, and less than a task may.
    return writes === 2 ? { delayMs: 4500 } : undefined;
  };
  faults.onTaskManagement = (code) => (code === ABORT_TASK ? NOT_SUPPORTED : undefined);
  faults.taskManagementDelayMs = () => 3000;

  const stuck = send(COMMAND.write, blockOf(1));
  // The abort is sent after 5 s and refused after 8 s; the reset's answer comes after 11 s.
  expect(await world.when(() => world.node.stats.taskManagement.includes(5), 15_000)).toBe(true);
  const second = send(COMMAND.write, blockOf(2));
  expect(await world.when(() => second.reply !== null, 60_000)).toBe(true);
  expect(second.reply?.error).toBe(0);

  const third = send(COMMAND.write, blockOf(3));
  await world.when(() => third.reply !== null, 5000);
  const flush = send(COMMAND.flush);
  await world.when(() => flush.reply !== null, 5000);
  expect([third.reply?.error, flush.reply?.error]).toEqual([0, 0]);
  await world.pass(60_000);
  expect(stuck.reply?.error).toBe(0);
  const read = send(COMMAND.read);
  await world.when(() => read.reply !== null, 5000);
  expect(read.reply?.data[0]).toBe(3);
  expect(world.disk.read(0, BLOCK_BYTES)).toEqual(blockOf(3));
  // The stuck one twice, the second and the third once each.
  expect(writes).toBe(4);
  await end(world);
});
