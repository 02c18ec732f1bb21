/** `attach` with a disk of two paths, as a user of both. */
import { expect } from 'vitest';
import { type Attached, attach, configuredDevices, type SeenEvent, until } from './attached.js';

/** The program that makes block devices of the LUNs, over both portals. */
export type PathUser = {
  /** In the order of their LUNs. */
  readonly devices: readonly string[];
  /** Resolves when all paths exist, in the state that their group is in. */
  untilBothPaths(): Promise<void>;
  /** Errors that it has told of, and further names of the devices: none of both is expected. */
  troubles(): Promise<readonly string[]>;
  end(): Promise<void>;
};

export type AttachedPaths = PathUser & {
  /** Kills the process; resolves when the next one has its devices, under the same names. */
  readonly takeOver: () => Promise<void>;
};

/** A portal, and the state of its paths if all is well. */
export type WishedPath = readonly [portal: string, state: string];

const PATHS_MS_MAX = 60_000;

export async function attachPaths(
  { target, luns }: { readonly target: string; readonly luns: readonly number[] },
  wished: readonly WishedPath[],
  flags: readonly string[],
): Promise<AttachedPaths> {
  const [[portal], ...others] = wished as [WishedPath, ...WishedPath[]];
  const portals = ['--portals', others.map(([other]) => other).join()];
  const options = [...portals, '--luns', luns.join(), ...flags];
  const begin = () => attach(`iscsi://${portal}/${target}`, options, { count: luns.length });
  const processes = [await begin()];
  const last = () => processes.at(-1) as Attached;
  const devicesNow = () =>
    luns.map((lun) => String(last().ready.find((event) => event['lun'] === lun)?.['device']));
  const devices = devicesNow();
  const stateOf = (lun: number, of: string) =>
    last().events.findLast(
      ({ event, ...more }) => event === 'pathState' && more['lun'] === lun && more['portal'] === of,
    )?.['to'];
  const isAsWished = (lun: number) => wished.every(([of, state]) => stateOf(lun, of) === state);
  return {
    devices,
    untilBothPaths: () =>
      until(
        () => luns.every(isAsWished),
        PATHS_MS_MAX,
        () => `all paths of ${target}; seen:\n${last().errors()}`,
      ),
    takeOver: async () => {
      await last().end('SIGKILL');
      processes.push(await begin());
      expect(devicesNow()).toEqual(devices);
    },
    troubles: async () =>
      processes.flatMap(({ events }) => troublesIn(events)).map((event) => JSON.stringify(event)),
    end: async () => {
      expect(await last().end('SIGTERM')).toBe(0);
      expect(await configuredDevices()).toEqual([]);
    },
  };
}

/** Of one process, which has each of its devices once. */
function troublesIn(events: readonly SeenEvent[]): SeenEvent[] {
  const named = new Set<unknown>();
  return events.filter(({ event, ...more }) => {
    if (event === 'deviceAttached') return named.size === named.add(more['lun']).size;
    return event === 'ioError' || event === 'deviceRemoved';
  });
}
