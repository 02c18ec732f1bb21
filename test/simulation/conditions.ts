import type { SessionOptions } from '../../src/config/contract.js';
import type { Seeded } from './seeded.js';
import type { Theme } from './storm-types.js';
import type { WorldOptions } from './world.js';

/** What kind of target, disks and session a seed has. */
export function conditionsOf(
  random: Seeded,
  how: { readonly sizeBytes: number; readonly theme: Theme },
): Omit<WorldOptions, 'random'> {
  const hasVolatileCache = random.chance(0.5);
  const removalLatencySeconds = random.pick([2, 5, 20, 60, Number.POSITIVE_INFINITY]);
  const digest = random.chance(0.2) ? (['CRC32C'] as const) : (['None'] as const);
  const areNeighbours = how.theme === 'neighbours';
  const session: Partial<SessionOptions> = {
    removalLatencySeconds,
    reconnectIntervalSeconds: random.pick([0.5, 1, 5]),
    noopIntervalSeconds: random.pick([1, 5]),
    noopTimeoutSeconds: random.pick([1, 5]),
    taskTimeoutSeconds: random.pick([3, 10, 60]),
    abortTimeoutSeconds: random.pick([1, 5, 15]),
    logicalUnitResetTimeoutSeconds: random.pick([1, 5]),
    // One or two commands cannot be shared out.
    queueDepthMax: random.pick(areNeighbours ? [4, 8, 32] : [1, 2, 8, 32]),
    heldBytesMax: random.pick(areNeighbours ? [1 << 16, 4 << 20] : [1 << 16, 1 << 18, 4 << 20]),
    initialR2T: random.chance(0.5),
    immediateData: random.chance(0.7),
    retainWrites: random.pick(['auto', 'auto', 'never']),
    retainedBytesMax: random.pick([32 << 10, 1 << 20]),
    headerDigest: digest,
    dataDigest: digest,
    maxRecvDataSegmentLength: random.pick([8192, 65_536, 262_144]),
  };
  return {
    session,
    luns: areNeighbours ? random.whole(2, 3) : random.chance(0.25) ? 2 : 1,
    disk: {
      sizeBytes: how.sizeBytes,
      writeCache: hasVolatileCache ? 'volatile' : 'none',
      thin: random.chance(0.7),
      limits: random.chance(0.3) ? { transferBlocksMax: 24, writeSameBlocksMax: 40 } : {},
    },
    negotiation: {
      initialR2T: random.chance(0.5),
      immediateData: random.chance(0.8),
      maxRecvDataSegmentLength: random.pick([8192, 65_536, 262_144]),
      defaultTime2Wait: random.pick([0, 0, 2]),
      headerDigest: ['CRC32C', 'None'],
      dataDigest: ['CRC32C', 'None'],
    },
  };
}
