import { expect, it } from 'vitest';
import { answerTo, endWell, newWorld, read } from './asked.js';
import { eventsOf } from './several-paths.js';

const NEVER = new AbortController().signal;

it('a discovery that reports too many portals gives one warning', async () => {
  const world = await newWorld({ portals: 100, told: 1, session: { multipath: 'auto' } });
  await world.until(world.stack.pathSources.find(NEVER), 60_000);
  expect(world.stack.paths?.members.length).toBe(64);
  expect(eventsOf(world, 'warning').length).toBe(1);
  expect((await answerTo(world, world.newClient(), read())).error).toBe(0);
  await endWell(world);
});

it('a session that is closed while a new path is written down leaves nothing at the target', async () => {
  const world = await newWorld({ portals: 2, told: 1, session: { multipath: 'auto' } });
  let isWritten = () => {};
  world.onPlaces = () =>
    new Promise((resolve) => {
      isWritten = resolve;
    });
  const finding = world.stack.pathSources.find(NEVER);
  await world.pass(1000);
  const closing = world.stack.close();
  await world.pass(2000);
  isWritten();
  await world.until(Promise.all([finding, closing]), 60_000);
  await world.pass(5000);
  expect(world.node.sessions.length).toBe(0);
  expect(world.faults).toEqual([]);
});
