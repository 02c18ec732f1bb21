import type { ProcessSettings } from '../config/contract.js';
import { pinProcess } from '../io/cpu-affinity.js';
import { native } from '../io/native.js';
import { nbdAddon } from './device-exporter.js';

/** Settings of the process that serves, not of a session. Throws UsageError 7 for wrong ones. */
export async function applyProcessSettings(settings: ProcessSettings): Promise<void> {
  const { cpuAffinity, busyPollMicroseconds = 0 } = settings;
  native.setBusyPoll(busyPollMicroseconds);
  if (cpuAffinity !== undefined) await pinProcess(nbdAddon, cpuAffinity);
}
