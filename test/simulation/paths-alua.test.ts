import { describe, expect, it } from 'vitest';
import type { PortGroup, PortGroupSettings } from '../../src/target/settings.js';
import { answerTo, ask, block, EIO, endWell, read, write } from './asked.js';
import {
  cut,
  eventsOf,
  pathsUp,
  refuse,
  severalPaths,
  twoGroups,
  twoPaths,
} from './several-paths.js';
import { TARGET_NAME } from './world.js';

const TEST_UNIT_READY = 0x00;
const MAINTENANCE_IN = 0xa3;
const MAINTENANCE_OUT = 0xa4;
const EXTENDED = 0x2a;
const PLAIN = 0x0a;
const TRANSITION = { key: 2, asc: 4, ascq: 0x0a };

/** Byte 1 of each REPORT TARGET PORT GROUPS, and the groups that SET TARGET PORT GROUPS was for. */
function asked(settings: PortGroupSettings = {}) {
  const reports: number[] = [];
  let sets = 0;
  settings.onAsked = (cdb) => {
    if (cdb[0] === MAINTENANCE_IN) reports.push(cdb[1] ?? 0);
    if (cdb[0] === MAINTENANCE_OUT) sets += 1;
  };
  return { settings, reports, sets: () => sets };
}

const SECOND_IS_BEST = (): Map<number, PortGroup> =>
  new Map([
    [1, { state: 'nonOptimized' }],
    [2, { state: 'optimized' }],
  ]);

describe('how the states of target port groups are read', () => {
  it.each([
    ['knows the extended header', undefined, EXTENDED],
    ['refuses the extended header', 'refused', PLAIN],
    ['ignores that the extended header is asked for', 'ignored', EXTENDED],
  ] as const)(
    'commands go over the optimized group if the target %s',
    async (_how, header, byte) => {
      const { settings, reports } = asked(header === undefined ? {} : { extendedHeader: header });
      const { world, used } = await twoGroups({
        portGroups: SECOND_IS_BEST(),
        portGroupSettings: settings,
      });
      expect(await used()).toEqual([2]);
      expect(reports[0]).toBe(EXTENDED);
      reports.length = 0;
      await world.pass(20_000);
      expect(new Set(reports)).toEqual(new Set([byte]));
      await endWell(world);
    },
  );

  it('the group of a path is the one that lists its port if the unit does not name the group', async () => {
    const { world, used } = await twoGroups({
      portGroups: SECOND_IS_BEST(),
      portGroupSettings: { isGroupUntold: true },
    });
    expect(await used()).toEqual([2]);
    expect(world.stack.paths?.unitOf(0)?.paths.map(({ group }) => group)).toEqual([1, 2]);
    await endWell(world);
  });

  it('a group at the end of a list of 400 is found', async () => {
    const others = Array.from({ length: 400 }, (_, at) => [at + 3, { state: 'standby' }] as const);
    const { world, used } = await twoGroups({
      portGroups: new Map<number, PortGroup>([...others, ...SECOND_IS_BEST()]),
    });
    expect(await used()).toEqual([2]);
    await endWell(world);
  });

  it('the last group counts if its port is cut off, as LIO leaves the extended header out of the length', async () => {
    const { world, used } = await twoGroups({
      portGroupSettings: {
        onAnswer: (data) => withLength(data.subarray(0, data.length - 4), data.length - 8),
      },
    });
    expect(await used()).toEqual([1]);
    expect(world.stack.paths?.unitOf(0)?.paths.map(({ group }) => group)).toEqual([1, 2]);
    await endWell(world);
  });

  it('a unit whose INQUIRY data report no groups gets no query for them', async () => {
    let reports = 0;
    const { world } = await twoPaths();
    world.commands.add(({ opcode }) => {
      if (opcode === MAINTENANCE_IN) reports += 1;
      return undefined;
    });
    cut(world.network);
    await world.pass(20_000);
    expect([pathsUp(world), reports]).toEqual([2, 0]);
    await endWell(world);
  });

  const HOSTILE: readonly (readonly [string, (data: Buffer) => Buffer])[] = [
    ['has a length of 4 GiB', (data) => withLength(data, 0xffff_ffff)],
    ['has a length of zero', (data) => withLength(data, 0)],
    ['is empty', () => Buffer.alloc(0)],
    ['is three bytes long', (data) => data.subarray(0, 3)],
    ['ends in the header', (data) => data.subarray(0, 6)],
    ['ends in a descriptor', (data) => data.subarray(0, data.length - 5)],
    [
      'has a group of 255 ports that are not there',
      (data) => {
        data[8 + 7] = 255;
        return data;
      },
    ],
    [
      'has states that nobody knows',
      (data) => {
        data[8] = data[20] = 0x07;
        return data;
      },
    ],
  ];
  it.each(HOSTILE)('the disk serves if the list of groups %s', async (_how, onAnswer) => {
    const { world, client } = await twoGroups({ portGroupSettings: { onAnswer } });
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    await world.pass(20_000);
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    expect(pathsUp(world)).toBe(2);
    await endWell(world);
  });

  it('states that cannot be read for a while are as they were', async () => {
    const { world, used } = await twoGroups({ portGroups: SECOND_IS_BEST() });
    const back = world.commands.add(({ opcode }) =>
      opcode === MAINTENANCE_IN ? { sense: { key: 4, asc: 0x44, ascq: 0 } } : undefined,
    );
    await world.pass(20_000);
    expect(await used()).toEqual([2]);
    back();
    await endWell(world);
  });

  it('states are ignored with alua off', async () => {
    const { settings, reports } = asked();
    const { world, used } = await twoGroups({
      portGroups: SECOND_IS_BEST(),
      portGroupSettings: settings,
      session: { alua: 'off' },
    });
    await world.pass(20_000);
    expect(await used()).toEqual([1]);
    expect(reports).toEqual([]);
    await endWell(world);
  });

  it.each([
    ['2Ah/06h', { asc: 0x2a, ascq: 0x06 }],
    ['2Ah/07h', { asc: 0x2a, ascq: 0x07 }],
    ['3Fh/03h', { asc: 0x3f, ascq: 0x03 }],
    ['3Fh/0Eh', { asc: 0x3f, ascq: 0x0e }],
  ] as const)('the unit attention %s has the states read again', async (_code, attention) => {
    const { settings, reports } = asked();
    const { world, become, client, used } = await twoGroups({
      portGroupSettings: settings,
      session: { pathCheckSeconds: 3600 },
    });
    become(1, 'nonOptimized', false);
    become(2, 'optimized', false);
    await world.pass(60_000);
    reports.length = 0;
    expect(await used()).toEqual([1]);
    world.node.raiseAttention(TARGET_NAME, 0, attention);
    expect((await answerTo(world, client, read())).error).toBe(0);
    await world.pass(2000);
    expect(reports.length).toBeGreaterThan(0);
    expect(await used()).toEqual([2]);
    await endWell(world);
  });
});

describe('a transition of all target port groups', () => {
  const inTransition = async (
    transitionSeconds: number,
    removalLatencySeconds = 30,
    isTold = true,
  ) => {
    const paths = await twoGroups({
      portGroupSettings: { transitionSeconds },
      session: { removalLatencySeconds },
    });
    await paths.world.pass(10_000);
    for (const tag of [1, 2]) paths.become(tag, 'transitioning', isTold);
    return paths;
  };

  it.each([true, false])(
    'requests wait without an outage as long as the target says (told: %s)',
    async (isTold) => {
      const { world, become, client } = await inTransition(120, 30, isTold);
      const requests = [write(1), read(4096), write(2, 8192)].map((each) =>
        ask(world, client, each),
      );
      await world.pass(100_000);
      expect(requests.map(({ reply }) => reply)).toEqual([null, null, null]);
      become(1, 'optimized', false);
      await world.when(() => requests.every(({ reply }) => reply !== null), 10_000);
      expect(requests.map(({ reply }) => reply?.error)).toEqual([0, 0, 0]);
      expect(eventsOf(world, 'deviceHeld')).toEqual([]);
      await endWell(world);
    },
  );

  it.each([
    ['5 s if the target says so', 5, 5],
    ['60 s if it does not tell', 0, 60],
  ] as const)('an outage begins after %s, and ends with the transition', async (_how, told, is) => {
    const { world, become, client } = await inTransition(told);
    const asked = ask(world, client, write(1));
    await world.pass(is * 1000 - 500);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    await world.pass(1000);
    expect(eventsOf(world, 'deviceHeld').length).toBe(1);
    become(2, 'optimized', false);
    await world.when(() => asked.reply !== null, 10_000);
    expect(asked.reply?.error).toBe(0);
    await endWell(world);
  });

  it.each([
    ['', undefined],
    [', and TEST UNIT READY does not tell so', { status: 0 }],
  ])('an outage begins if all ports are on standby after the transition%s', async (_how, ready) => {
    const { world, become, client } = await inTransition(120, 10);
    const asked = ask(world, client, write(1));
    await world.pass(5000);
    for (const tag of [1, 2]) become(tag, 'standby', false);
    const back = world.commands.add(({ opcode }) =>
      opcode === TEST_UNIT_READY ? ready : undefined,
    );
    const beganAtMs = world.nowMs;
    await world.when(() => asked.reply !== null, 300_000);
    expect(asked.reply?.error).toBe(EIO);
    expect(asked.atMs - beganAtMs).toBeLessThan(20_000);
    back();
    become(2, 'optimized', false);
    await world.when(() => eventsOf(world, 'deviceAttached').length === 1, 30_000);
    expect((await answerTo(world, world.newClient(), write(2))).error).toBe(0);
    await endWell(world);
  });

  it('no outage begins if another group serves after the transition', async () => {
    const { world, become, client } = await inTransition(120);
    const asked = ask(world, client, write(1));
    await world.pass(5000);
    become(1, 'standby', false);
    become(2, 'optimized', false);
    await world.when(() => asked.reply !== null, 20_000);
    expect([asked.reply?.error, eventsOf(world, 'deviceHeld').length]).toEqual([0, 0]);
    await endWell(world);
  });

  it('requests fail after the transition time and the removal latency', async () => {
    const { world, client } = await inTransition(20, 10);
    const asked = ask(world, client, write(1));
    const beganAtMs = world.nowMs;
    await world.when(() => asked.reply !== null, 60_000);
    expect(asked.reply?.error).toBe(EIO);
    expect(Math.round((asked.atMs - beganAtMs) / 1000)).toBe(30);
    await endWell(world);
  });

  it('requests wait, too, if the only path that is left is in transition', async () => {
    const { world, first, become, client } = await twoGroups({
      portGroupSettings: { transitionSeconds: 40 },
    });
    become(2, 'transitioning');
    await answerTo(world, client, read());
    await world.pass(1000);
    const late = world.commands.add(({ lba }) => (lba === null ? undefined : { delayMs: 5000 }));
    const asked = [write(1), read()].map((each) => ask(world, client, each));
    await world.pass(100);
    refuse(first);
    late();
    await world.pass(5000);
    expect(asked.map(({ reply }) => reply)).toEqual([null, null]);
    become(2, 'optimized', false);
    await world.when(() => asked.every(({ reply }) => reply !== null), 20_000);
    expect(asked.map(({ reply }) => reply?.error)).toEqual([0, 0]);
    expect(eventsOf(world, 'deviceHeld')).toEqual([]);
    first.become('up');
    await endWell(world);
  });

  it('a path whose target cannot report its groups during a transition is in transition', async () => {
    const { world, client } = await twoGroups();
    const back = world.commands.add(({ opcode, portalGroupTag }) =>
      opcode === MAINTENANCE_IN && portalGroupTag === 1 ? { sense: TRANSITION } : undefined,
    );
    await world.pass(6000);
    expect(eventsOf(world, 'pathState').at(-1)).toMatchObject({ to: 'transitioning' });
    expect((await answerTo(world, client, write(1))).error).toBe(0);
    back();
    await world.when(() => pathsUp(world) === 2, 10_000);
    await endWell(world);
  });
});

describe('target port groups that have to be set (SET TARGET PORT GROUPS)', () => {
  const controllers = (): Map<number, PortGroup> =>
    new Map([
      [1, { state: 'optimized' }],
      [2, { state: 'standby' }],
    ]);

  const withoutFirst = async (alua: 'implicit' | 'explicit', canBeSet = true) => {
    const { settings, sets } = asked({ canBeSet });
    const paths = await severalPaths(2, {
      portGroups: controllers(),
      portGroupSettings: settings,
      session: { alua },
    });
    const { world, client, networks } = paths;
    await world.pass(12_000);
    expect([pathsUp(world), sets()]).toEqual([1, 0]);
    refuse(networks[0]!);
    const write1 = ask(world, client, write(1));
    await world.when(() => write1.reply !== null, 20_000);
    return { world, networks, client, sets, write1 };
  };

  it('a group on standby is made optimized if no path can be used, and only with alua explicit', async () => {
    const { world, networks, client, sets, write1 } = await withoutFirst('explicit');
    expect([write1.reply?.error, sets()]).toEqual([0, 1]);
    networks[0]!.become('up');
    await world.pass(60_000);
    expect(sets()).toBe(1);
    expect((await answerTo(world, client, read())).data.equals(block(1))).toBe(true);
    await endWell(world);
  });

  it.each([
    ['with alua implicit', 'implicit', true],
    ['if the target says that it takes no such command', 'explicit', false],
  ] as const)('no group is set %s', async (_how, alua, canBeSet) => {
    const { world, networks, sets, write1 } = await withoutFirst(alua, canBeSet);
    expect([write1.reply, sets()]).toEqual([null, 0]);
    networks[0]!.become('up');
    await world.when(() => write1.reply !== null, 20_000);
    expect(write1.reply?.error).toBe(0);
    await endWell(world);
  });
});

function withLength(data: Buffer, length: number): Buffer {
  data.writeUInt32BE(length, 0);
  return data;
}
