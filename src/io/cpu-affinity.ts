import { readFile } from 'node:fs/promises';
import { parseCpuList } from '../base/cpu-list.js';
import { errnoOf, UsageError } from '../base/errors.js';
import type { NbdAddon } from './nbd-netlink.js';

/**
 * Keeps this process, with every thread it has and will have, on these processors. Programs that it
 * starts inherit that. Throws UsageError 7 when it may not use one of them, since a part of the
 * list would be a surprise, and 1 (ERR_CPU_AFFINITY_REFUSED) when the call is refused.
 */
export async function pinProcess(
  addon: Pick<NbdAddon, 'setCpuAffinity'>,
  processors: readonly number[],
  statusPath = '/proc/self/status',
): Promise<void> {
  const status = await readFile(statusPath, 'utf8');
  const words = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';
  const allowed = parseCpuList(words) ?? [];
  const missing = processors.filter((cpu) => !allowed.includes(cpu));
  if (missing.length > 0) {
    throw new UsageError(
      `cpuAffinity names processor ${missing[0]}, which this process may not use: it has ` +
        `${words}. Name some of these, or omit cpuAffinity.`,
    );
  }
  try {
    addon.setCpuAffinity(processors);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === '') throw error;
    throw new UsageError(
      `The kernel does not let this process choose its processors (${errno}). ` +
        'Omit cpuAffinity, or allow it: the service needs SystemCallFilter=sched_setaffinity.',
      { exitCode: 1, code: 'ERR_CPU_AFFINITY_REFUSED', cause: error },
    );
  }
}
