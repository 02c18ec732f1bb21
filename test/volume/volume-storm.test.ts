import { afterEach, describe, expect, it } from 'vitest';
import { VolumeError } from '../../src/volume/volume-error.js';
import type { Volumes } from '../../src/volume/volumes.js';
import { numbersOf } from '../helpers/random.js';
import { Killed, specOf, TARGET, VolumeWorld } from './volume-world.js';

const VOLUMES = 100;
const TARGETS = 20;
const AT_A_TIME = 10;
const ROUNDS = 60;
const SEEDS = [1, 2];

let world = new VolumeWorld();
afterEach(() => world.dispose());

function targetOf(volume: number): string {
  return `${TARGET}-${volume % TARGETS}`;
}

function call(volumes: Volumes, volume: number, choice: number): Promise<void> {
  const volumeId = `v${volume}`;
  const stagingPath = `/staging/${volumeId}`;
  const targetPath = `/pods/${volumeId}`;
  const secrets = { chapUser: 'user', chapSecret: `secret of ${volumeId}` };
  const spec = specOf(volume, { targetName: targetOf(volume) });
  switch (choice) {
    case 0:
    case 1:
      return volumes.stage({ volumeId, spec, secrets, stagingPath });
    case 2:
      return volumes.publish({ volumeId, targetPath, readOnly: false, isExclusive: true });
    case 3:
      return volumes.unpublish(volumeId, targetPath);
    default:
      return volumes.unstage(volumeId, stagingPath);
  }
}

/** A session for each target that has a volume, and for no other; a mount for each volume. */
function expectNoLeak(seed: number, round: number): void {
  const active = Array.from({ length: VOLUMES }, (_, volume) => volume).filter((volume) => {
    const phase = world.record(`v${volume}`)?.phase ?? 'known';
    return phase !== 'known';
  });
  const where = `seed ${seed}, round ${round}`;
  const targets = [...new Set(active.map(targetOf))].sort();
  expect(world.sessions.map(({ target }) => target).sort(), where).toEqual(targets);
  const staged = world.mountTable.map(({ path }) => path).filter((path) => /^.staging/.test(path));
  expect(staged.sort(), where).toEqual(active.map((volume) => `/staging/v${volume}`).sort());
}

describe('many volumes of many targets', () => {
  it.each(SEEDS)(
    '100 volumes, 10 calls at a time with kills, leak nothing (seed %i)',
    async (seed) => {
      world.dispose();
      world = new VolumeWorld();
      const next = numbersOf(seed);
      for (let volume = 0; volume < VOLUMES; volume += 1) {
        world.addDisk(volume, {}, targetOf(volume));
      }
      let volumes = await world.start();
      for (let round = 0; round < ROUNDS; round += 1) {
        const isKilled = next(3) === 0;
        if (isKilled) world.killAt = world.steps + 1 + next(200);
        const calls = Array.from({ length: AT_A_TIME }, () => {
          return call(volumes, next(VOLUMES), next(5));
        });
        for (const end of await Promise.allSettled(calls)) {
          if (end.status === 'fulfilled') continue;
          const isExpected = end.reason instanceof VolumeError || end.reason instanceof Killed;
          expect(isExpected, `seed ${seed}: ${end.reason}`).toBe(true);
        }
        if (isKilled || next(20) === 0) volumes = await world.start();
        expectNoLeak(seed, round);
      }
      for (let volume = 0; volume < VOLUMES; volume += 1) {
        await call(volumes, volume, 3);
        await call(volumes, volume, 4);
      }
      const nothing = { mounts: [], sessions: [], secrets: [], targets: [], staged: [] };
      expect(world.leftovers()).toEqual(nothing);
    },
  );
});
