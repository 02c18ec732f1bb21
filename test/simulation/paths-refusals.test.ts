import { describe, expect, it } from 'vitest';
import { answerTo, endWell, read } from './asked.js';
import { eventsOf, pathsUp, READ_10, twoGroups } from './several-paths.js';

const TEST_UNIT_READY = 0x00;
const MAINTENANCE_IN = 0xa3;
const REFUSALS = [
  ['0Ah', 0x0a, 'transitioning'],
  ['0Bh', 0x0b, 'standby'],
  ['0Ch', 0x0c, 'unavailable'],
] as const;

/**
 * Two groups; commands over the second port are refused with this qualifier of 02h/04h, REPORT
 * TARGET PORT GROUPS too if it is not `isReported` there.
 */
async function refusing(ascq: number, isReported: boolean) {
  const paths = await twoGroups({ session: { pathCheckSeconds: 5 } });
  const { world } = paths;
  await world.pass(10_000);
  const sense = { key: 2, asc: 4, ascq };
  const refused = [TEST_UNIT_READY, READ_10, ...(isReported ? [] : [MAINTENANCE_IN])];
  const serveAgain = world.commands.add(({ opcode, portalGroupTag }) =>
    portalGroupTag === 2 && refused.includes(opcode) ? { sense } : undefined,
  );
  const states = () => eventsOf(world, 'pathState').map((event) => 'to' in event && event.to);
  const before = states().length;
  return { ...paths, serveAgain, newStates: () => states().slice(before) };
}

const STATES = ['standby', 'unavailable', 'offline', 'transitioning'] as const;

describe('a port that refuses commands because of its state', () => {
  describe.each([true, false])('(its group is reported over it: %s)', (isReported) => {
    it.each(
      REFUSALS.flatMap(([name, ascq, met]) =>
        STATES.map((reported) => [name, reported, ascq, met] as const),
      ),
    )('the path has the state of its group if 04h/%s is met and %s is reported', async (...of) => {
      const [, reported, ascq, met] = of;
      const { world, become, newStates } = await refusing(ascq, isReported);
      become(2, reported, false);
      await world.pass(58_000);
      // What the command has met may come first; each is reported once.
      expect(newStates()).toEqual(met === reported ? [met] : [met, reported]);
      await endWell(world);
    });
  });

  it.each(REFUSALS)(
    'the path keeps the state that 04h/%s means if its group is reported as serving',
    async (_name, ascq, met) => {
      const { world, client, serveAgain, newStates } = await refusing(ascq, true);
      await world.pass(58_000);
      expect(newStates()).toEqual([met]);
      expect((await answerTo(world, client, read())).error).toBe(0);
      serveAgain();
      await world.when(() => pathsUp(world) === 2, 10_000);
      expect(newStates().at(-1)).toBe('nonOptimized');
      await endWell(world);
    },
  );

  it('the path is tried at once if another port reports that its group serves again', async () => {
    const { world, become, serveAgain } = await refusing(0x0b, true);
    become(2, 'standby');
    await world.pass(60_000);
    serveAgain();
    become(2, 'optimized');
    await answerTo(world, world.newClient(), read());
    await world.when(() => pathsUp(world) === 2, 1000);
    await endWell(world);
  });
});
