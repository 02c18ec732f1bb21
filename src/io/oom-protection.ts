import { writeFile } from 'node:fs/promises';
import { errnoOf } from '../base/errors.js';
import type { NbdAddon } from './nbd-netlink.js';

/**
 * Below every service that may be killed, above none: -1000 would also make a `--run` command that
 * inherits it unkillable.
 */
const OOM_SCORE_ADJ = '-999';

/**
 * Keeps this process able to answer while memory is short, which may be just when the kernel wants
 * to write its dirty pages to our own device: its allocations never wait for such writes
 * (PR_SET_IO_FLUSHER, also for threads that are started later), and other processes are killed
 * first. Returns one sentence for each that was refused; devices work without.
 *
 * Its memory is not locked: V8 gives heap pages back with MADV_DONTNEED, which fails on locked
 * ones, and then it ends the process. `MemorySwapMax=0` of the service keeps it out of swap.
 */
export async function protectFromOomKiller(
  addon: NbdAddon,
  oomPath = '/proc/self/oom_score_adj',
): Promise<readonly string[]> {
  const steps: readonly (readonly [danger: string, needs: string, step: () => unknown])[] = [
    ['it may wait for its own device', 'CAP_SYS_RESOURCE', () => addon.setIoFlusher()],
    ['it may be killed', 'CAP_SYS_RESOURCE', () => writeFile(oomPath, OOM_SCORE_ADJ)],
  ];
  const refused: string[] = [];
  for (const [danger, needs, step] of steps) {
    try {
      await step();
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === '') throw error;
      refused.push(`when memory is short, ${danger}: this process has no ${needs} (${errno})`);
    }
  }
  return refused;
}
