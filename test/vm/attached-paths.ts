/** `attach` with a disk of two paths, as a user of both. */
import { expect } from 'vitest';
import { attach, configuredDevices, until } from './attached.js';

/** Whoever makes block devices of the LUNs, over both portals. */
export type PathUser = {
  /** In the order of their LUNs. */
  readonly devices: readonly string[];
  /** Resolves when all paths are there, in the state that their group is in. */
  untilBothPaths(): Promise<void>;
  /** Errors that it has told of, and further names of the devices: none of both is expected. */
  troubles(): Promise<readonly string[]>;
  end(): Promise<void>;
};

/** A portal, and the state of its paths if all is well. */
export type WishedPath = readonly [portal: string, state: string];

const PATHS_MS_MAX = 60_000;

export async function attachPaths(
  { target, luns }: { readonly target: string; readonly luns: readonly number[] },
  wished: readonly WishedPath[],
  flags: readonly string[],
): Promise<PathUser> {
  const [[portal], ...others] = wished as [WishedPath, ...WishedPath[]];
  const multipath = ['--multipath', 'auto', '--portals', others.map(([other]) => other).join()];
  const options = [...multipath, '--luns', luns.join(), ...flags];
  const attached = await attach(`iscsi://${portal}/${target}`, options, { count: luns.length });
  const { events } = attached;
  const stateOf = (lun: number, of: string) =>
    events.findLast(
      ({ event, ...more }) => event === 'pathState' && more['lun'] === lun && more['portal'] === of,
    )?.['to'];
  const isAsWished = (lun: number) => wished.every(([of, state]) => stateOf(lun, of) === state);
  return {
    devices: luns.map((lun) =>
      String(attached.ready.find((event) => event['lun'] === lun)?.['device']),
    ),
    untilBothPaths: () =>
      until(
        () => luns.every(isAsWished),
        PATHS_MS_MAX,
        () => `all paths of ${target}; seen:\n${attached.errors()}`,
      ),
    troubles: async () => {
      const named = new Set<unknown>();
      const told = events.filter(({ event, ...more }) => {
        if (event === 'deviceAttached') return named.size === named.add(more['lun']).size;
        return event === 'ioError' || event === 'deviceRemoved';
      });
      return told.map((event) => JSON.stringify(event));
    },
    end: async () => {
      expect(await attached.end('SIGTERM')).toBe(0);
      expect(await configuredDevices()).toEqual([]);
    },
  };
}
