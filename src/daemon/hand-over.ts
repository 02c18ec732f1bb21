import { setTimeout as sleep } from 'node:timers/promises';
import { LinkError } from '../base/errors.js';
import { parseSense } from '../scsi/sense.js';
import { verdictOf } from '../scsi/verdict.js';
import type { Asker } from './disk-probe.js';

/** SYNCHRONIZE CACHE (10) of SBC, of the whole disk. */
const SYNCHRONIZE_CACHE = Buffer.from([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
/** How long the end of a session waits for its flushes. */
const FLUSHES_MS_MAX = 5000;
/** A unit attention each for power on, mode parameters and the like, before it is done. */
const TRIES_MAX = 4;

/**
 * True once all that a disk has acknowledged is on it, or known to be lost: a unit attention that
 * says so is the unit's before the next try is sent.
 */
export async function flushed(asker: Pick<Asker, 'execute'>, lun: number): Promise<boolean> {
  const cdb = SYNCHRONIZE_CACHE;
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    try {
      const answer = await asker.execute({ lun, cdb, direction: 'none', length: 0 });
      const sense = answer.sense.length > 0 ? parseSense(answer.sense) : null;
      const { action } = verdictOf(answer.status, sense);
      if (action === 'success') return true;
      if (action === 'fail' || action === 'retryAfterDelay') return false;
    } catch (error) {
      if (error instanceof LinkError) return false;
      throw error;
    }
  }
  return false;
}

/** Flushes the disks of these LUNs, all at a time, for a while; `done` is told of each that is. */
export async function flushAll(
  asker: Pick<Asker, 'execute'>,
  luns: readonly number[],
  done: (lun: number) => void,
): Promise<void> {
  if (luns.length === 0) return;
  const ended = new AbortController();
  const flush = async (lun: number) => {
    const isFlushed = await flushed(asker, lun);
    if (isFlushed && !ended.signal.aborted) done(lun);
  };
  const tooLong = sleep(FLUSHES_MS_MAX, undefined, { signal: ended.signal }).catch(() => undefined);
  await Promise.race([Promise.all(luns.map(flush)), tooLong]).finally(() => ended.abort());
}
