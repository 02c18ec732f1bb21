import { readFile } from 'node:fs/promises';

/** What tells this boot of the machine from any other; a clock that is set does not change it. */
export async function currentBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}
