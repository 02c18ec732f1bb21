/**
 * What happens to the two paths of a disk under load: its active path is cut or its port group
 * changes, then both are away. Two LUNs of LIO: a file system is on one, the other is measured.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { shell } from './attached.js';
import type { PathUser } from './attached-paths.js';
import { type Lio, type LioLun, startLio } from './lio.js';
import { longestIn, startFileLoad, startMeasuredLoad } from './measured-load.js';
import { MIB } from './targets.js';
import { Wire } from './wire.js';

export const IQN = 'iqn.2003-01.org.linux-iscsi:paths';
/** The first is better: its group is optimized, that of the second is not. */
export const PORTALS = ['10.77.1.1:3260', '10.77.2.1:3260'] as const;

/** The paths, if all is well. */
export const OF_BOTH = [
  [PORTALS[0], 'optimized'],
  [PORTALS[1], 'nonOptimized'],
] as const;

type Stage = { readonly lio: Lio; readonly wires: readonly [Wire, Wire] };

export type PathEvent = {
  readonly name: string;
  readonly begin: (stage: Stage) => Promise<void>;
  /** How long it lasts. */
  readonly seconds: number;
  readonly end: (stage: Stage) => Promise<void>;
  /** What the longest request should take, if the event lasted so long. */
  readonly goalMs: (lastedMs: number) => number;
};

export type EventResult = {
  readonly name: string;
  readonly readMs: number;
  readonly writeMs: number;
  readonly goalMs: number;
};

const mend = async ({ wires }: Stage) => {
  for (const wire of wires) await wire.mend();
};
const optimized = ({ lio }: Stage) => lio.access(1, 'optimized');

/** Of the kernel, about the disk and the file system; those of a path are not meant. */
const COMPLAINTS =
  'I/O error, dev (nbd|dm-)|Buffer I/O error|EXT4-fs (error|warning)|Aborting journal';

/** The time that a way which reports its end, or its state, may cost. */
const AT_ONCE_MS = 500;
const atOnce = () => AT_ONCE_MS;

/** `silence`: how long the active path is without an answer, of which `ping` seconds are waited. */
export function pathEvents({
  silence,
  ping,
}: {
  readonly silence: number;
  readonly ping: number;
}): readonly PathEvent[] {
  const access = (state: 'standby' | 'unavailable'): PathEvent => ({
    name: `its group ${state}, and back`,
    begin: ({ lio }) => lio.access(1, state),
    seconds: 4,
    end: optimized,
    goalMs: atOnce,
  });
  return [
    {
      name: 'its connection reset',
      begin: ({ wires: [active] }) => active.cut('reset'),
      seconds: 0.3,
      end: mend,
      goalMs: atOnce,
    },
    {
      name: 'its connection reset, then refused for 8 s',
      begin: ({ wires: [active] }) => active.cut('reset'),
      seconds: 8,
      end: mend,
      goalMs: atOnce,
    },
    {
      name: `packets dropped for ${silence} s`,
      begin: ({ wires: [active] }) => active.cut('drop'),
      seconds: silence,
      end: mend,
      goalMs: () => ping * 1000 + AT_ONCE_MS,
    },
    access('standby'),
    access('unavailable'),
    {
      name: 'its group in transition twice, 2 s each',
      begin: ({ lio }) => lio.access(1, 'nonOptimized', 2),
      seconds: 1,
      end: ({ lio }) => lio.access(1, 'optimized', 2),
      goalMs: atOnce,
    },
    {
      name: 'both paths reset and refused for 8 s',
      begin: async ({ wires }) => {
        for (const wire of wires) await wire.cut('reset');
      },
      seconds: 8,
      end: mend,
      // What is left of the pause until the next attempt to log in.
      goalMs: (lastedMs) => lastedMs + 5000 + AT_ONCE_MS,
    },
  ];
}

/** All events, one after the other, on the disks that `start` makes. */
export async function throughEvents(
  folder: string,
  events: readonly PathEvent[],
  start: () => Promise<PathUser>,
): Promise<EventResult[]> {
  const luns: LioLun[] = [];
  for (const number of [0, 1]) {
    luns.push({ file: join(folder, `disk${number}`), sizeBytes: 32 * MIB, isBuffered: true });
  }
  await using first = await Wire.to(PORTALS[0]);
  await using second = await Wire.to(PORTALS[1]);
  const [portal, otherPortal] = PORTALS;
  const options = { luns, iqn: IQN, portals: [portal], otherPortals: [otherPortal] };
  await using lio = await startLio(options);
  await lio.access(2, 'nonOptimized');
  const stage: Stage = { lio, wires: [first, second] };
  await shell('dmesg --clear');
  const user = await start();
  const [raw = '', withFiles = ''] = user.devices;
  const mount = join(folder, 'mnt');
  await mkdir(mount);
  await shell(`mkfs.ext4 -q ${withFiles}; mount ${withFiles} ${mount}`);
  await user.untilBothPaths();
  const loads = [startMeasuredLoad(folder, raw), startFileLoad(folder, mount)] as const;
  const meanwhile = <T>(work: Promise<T>) =>
    Promise.race([work, ...loads.map(({ failed }) => failed.then(() => work))]);
  await meanwhile(loads[0].untilBusy());
  const happened: { name: string; atMs: number; goalMs: number }[] = [];
  for (const { name, begin, seconds, end, goalMs } of events) {
    const atMs = Date.now();
    await begin(stage);
    await meanwhile(sleep(seconds * 1000));
    await end(stage);
    happened.push({ name, atMs, goalMs: goalMs(Date.now() - atMs) });
    await meanwhile(user.untilBothPaths());
    await meanwhile(sleep(1000));
  }
  const requests = await loads[0].end();
  await loads[1].end();
  await shell(`umount ${mount}; mount ${withFiles} ${mount}; ${loads[1].verify}; umount ${mount}
    e2fsck -fn ${withFiles}`);
  expect(await user.troubles()).toEqual([]);
  expect(await shell(`dmesg | grep -E '${COMPLAINTS}' || true`)).toBe('');
  await user.end();
  return happened.map(({ name, atMs, goalMs }, index) => {
    const untilMs = happened[index + 1]?.atMs ?? Number.POSITIVE_INFINITY;
    return { name, goalMs, ...longestIn(requests, atMs, untilMs) };
  });
}
