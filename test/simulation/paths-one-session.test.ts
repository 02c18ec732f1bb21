import { expect, it } from 'vitest';
import type { TargetSession } from '../../src/target/session.js';
import { answerTo, endWell, newWorld, write } from './asked.js';
import { eventsOf } from './several-paths.js';

const NEVER = new AbortController().signal;

it('a portal found by discovery is given up if each login there ends the session of the disk', async () => {
  const world = await newWorld({ portals: 2, told: 1, session: { multipath: 'auto' } });
  let logins = 0;
  const heard = world.node.faults.onLogin;
  world.node.faults.onLogin = (login) => {
    if (login.targetName === '') return undefined;
    heard?.(login);
    logins += 1;
    const others = world.node.sessions.filter((session) => isidOf(session) !== login.isid);
    for (const { connections } of others) {
      for (const each of connections.values()) world.clock.at(world.nowMs + 1, () => each.finish());
    }
    return undefined;
  };
  await world.until(world.stack.pathSources.find(NEVER), 20_000);
  const client = world.newClient();
  for (let at = 0; at < 300; at += 1) {
    expect((await answerTo(world, client, write(at & 255))).error).toBe(0);
    await world.pass(1000);
  }
  expect(logins).toBeLessThan(12);
  expect(world.stack.paths).toBeNull();
  const warnings = eventsOf(world, 'warning').map((event) => JSON.stringify(event));
  expect(warnings.filter((text) => text.includes('ends other sessions'))).toHaveLength(1);
  await endWell(world);
});

const isidOf = ({ isid }: TargetSession): string => isid.toString('hex');
