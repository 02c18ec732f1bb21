import { openRetainedStore } from '../lun/retained-store.js';
import { Supervisor } from './supervisor.js';
import type { SupervisorOptions } from './supervisor-options.js';

/** A supervisor whose sessions retain what is not flushed in `retainedDirectory`. */
export async function openSupervisor(
  options: Omit<SupervisorOptions, 'bootId' | 'retained'> & {
    readonly retainedDirectory: string | null;
  },
): Promise<Supervisor> {
  const { retainedDirectory, ...rest } = options;
  const retained = await openRetainedStore({
    directory: retainedDirectory,
    onWarning: (message) => options.log.warn(message),
  });
  return Supervisor.make({ ...rest, retained });
}
