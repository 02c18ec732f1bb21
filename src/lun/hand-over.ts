import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import { verdictOfReply } from '../scsi/verdict.js';
import { type FoundDisk, type ScsiExecutor, synchronizeCache } from './disk-probe.js';

/** A unit attention each for power on, mode parameters and the like, before it is done. */
const TRIES_MAX = 4;
/** A disk that hangs must not use up the time that the service manager gives us to end. */
const FLUSH_MS_MAX = 5000;

/**
 * LUNs with a volatile cache, now or at some time before: one that never had any has nothing to
 * flush, and may not know the command.
 */
export function everCached(disks: readonly FoundDisk[], units: readonly LogicalUnit[]): number[] {
  const luns = new Set<number>();
  for (const { lun, facts } of disks) if (facts.writeCacheEnabled) luns.add(lun);
  for (const { lun, facts, firstFacts } of units) {
    if (facts.writeCacheEnabled || firstFacts.writeCacheEnabled) luns.add(lun);
  }
  return [...luns];
}

/** Those of `luns` that could not be flushed in the time there is. */
export async function unflushed(
  asker: Pick<ScsiExecutor, 'execute'>,
  luns: readonly number[],
  clock: Clock,
): Promise<number[]> {
  const areFlushed = await Promise.all(luns.map((lun) => flushedInTime(asker, lun, clock)));
  return luns.filter((_lun, at) => !areFlushed[at]);
}

function flushedInTime(
  asker: Pick<ScsiExecutor, 'execute'>,
  lun: number,
  clock: Clock,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const cancel = clock.at(clock.nowMs() + FLUSH_MS_MAX, () => resolve(false));
    flushed(asker, lun).then(resolve, reject).finally(cancel);
  });
}

/**
 * True once all that a disk has acknowledged is on it, or known to be lost: a unit attention that
 * says so is the unit's before the next try is sent.
 */
async function flushed(asker: Pick<ScsiExecutor, 'execute'>, lun: number): Promise<boolean> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    try {
      const { action } = verdictOfReply(await asker.execute(synchronizeCache(lun)));
      if (action === 'success') return true;
      if (action === 'fail' || action === 'away' || action === 'retryAfterDelay') return false;
    } catch (error) {
      productError(error);
      return false;
    }
  }
  return false;
}
