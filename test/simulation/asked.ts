import { expect } from 'vitest';
import { COMMAND, type ModelClient, type ModelReply, type ModelRequest } from './model-client.js';
import { Seeded } from './seeded.js';
import { World, type WorldOptions } from './world.js';

export const EIO = 5;
export const FLUSH: ModelRequest = { command: COMMAND.flush, flags: 0, offset: 0, length: 0 };

export const block = (value: number, length = 4096): Buffer => Buffer.alloc(length, value);

export function write(value: number, offset = 0, length = 4096): ModelRequest {
  return { command: COMMAND.write, flags: 0, offset, length, data: block(value, length) };
}

export function read(offset = 0, length = 4096): ModelRequest {
  return { command: COMMAND.read, flags: 0, offset, length };
}

/** What became of a request; `reply` is null while nothing has. */
export type Asked = { reply: ModelReply | null; atMs: number };

export async function newWorld(options: Omit<WorldOptions, 'random'> = {}): Promise<World> {
  const world = new World({ random: new Seeded(1), ...options });
  await world.start();
  return world;
}

export function ask(world: World, client: ModelClient, request: ModelRequest): Asked {
  const asked: Asked = { reply: null, atMs: 0 };
  client.send(request, (reply) => {
    asked.reply = reply;
    asked.atMs = world.nowMs;
  });
  return asked;
}

/** Asks and waits for the answer. */
export async function answerTo(
  world: World,
  client: ModelClient,
  request: ModelRequest,
): Promise<ModelReply> {
  const asked = ask(world, client, request);
  await world.when(() => asked.reply !== null, 200_000);
  if (asked.reply === null) throw new Error(`command ${request.command} is never answered`);
  return asked.reply;
}

export async function endWell(world: World): Promise<void> {
  await world.end({ force: true });
  expect(world.faults).toEqual([]);
}
