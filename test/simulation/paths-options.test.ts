import { describe, expect, it } from 'vitest';
import type { DaemonSession } from '../../src/supervisor/daemon-session.js';
import { setSessionOption } from '../../src/supervisor/live-options.js';
import { answerTo, ask, endWell, write } from './asked.js';
import { cut, severalPaths } from './several-paths.js';
import type { World } from './world.js';

const TWO_SESSIONS = { session: { sessionsPerPortal: 2, pathPolicy: 'round-robin' } } as const;

const sessionOf = ({ stack }: World) =>
  ({ stack, sessionId: stack.sessionId, timers: stack.handle.session.timers }) as DaemonSession;
const sessionsOf = ({ stack }: World) =>
  (stack.paths?.members ?? []).map(({ client: { session } }) => session);

describe('an option that is set while a disk has two paths', () => {
  it('a timer counts for the sessions of both', async () => {
    const { world, networks } = await severalPaths(1, TWO_SESSIONS);
    const changed = setSessionOption(sessionOf(world), 'noopIntervalSeconds', 2);
    expect(changed).toMatchObject({ before: 5, value: 2 });
    setSessionOption(sessionOf(world), 'reconnectIntervalSeconds', 33);
    expect(sessionsOf(world).map(({ timers }) => timers.noopIntervalMs)).toEqual([2000, 2000]);
    networks[0]!.become('refused');
    cut(networks[0]!);
    await world.pass(10_000);
    networks[0]!.become('up');
    await world.pass(20_000);
    expect(sessionsOf(world).map(({ state }) => state)).toEqual(['reconnecting', 'reconnecting']);
    await world.pass(10_000);
    expect(sessionsOf(world).map(({ state }) => state)).toEqual(['loggedIn', 'loggedIn']);
    await endWell(world);
  });

  it('a timer of one path counts for its session only, and a limit of the disk is refused', async () => {
    const { world } = await severalPaths(1, TWO_SESSIONS);
    const member = world.stack.paths!.members[1]!;
    const changed = setSessionOption(sessionOf(world), 'noopIntervalSeconds', 2, member);
    expect(changed).toMatchObject({ before: 5, value: 2, applies: 'nextReconnect' });
    expect(sessionsOf(world).map(({ timers }) => timers.noopIntervalMs)).toEqual([5000, 2000]);
    const refused = () => setSessionOption(sessionOf(world), 'queueDepthMax', 2, member);
    expect(refused).toThrow(/belongs to the disks, .* session 0123456789abcdef/);
    await endWell(world);
  });

  it('the queue depth bounds the commands under way over each of them', async () => {
    const { world, client } = await severalPaths(1, TWO_SESSIONS);
    setSessionOption(sessionOf(world), 'queueDepthMax', 2);
    const late = world.commands.add(({ lba }) => (lba === null ? undefined : { delayMs: 1000 }));
    const asked = Array.from({ length: 12 }, (_, at) => ask(world, client, write(1, at * 4096)));
    await world.pass(200);
    const inFlight = sessionsOf(world).map((session) => session.commandsInFlight);
    expect(inFlight).toEqual([2, 2]);
    late();
    await world.when(() => asked.every(({ reply }) => reply !== null), 20_000);
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    await endWell(world);
  });
});
