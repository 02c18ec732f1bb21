import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A folder in memory, of this user alone, that goes with its scope. */
export class MemoryFolder {
  readonly path: string = mkdtempSync('/dev/shm/iscsi-nbd-test-');
  #mounted: string[] = [];

  /** A file system of its own for `path`, of so many bytes. Root only. */
  mount(name: string, sizeBytes: number): string {
    const path = join(this.path, name);
    execFileSync('mkdir', ['-m', '0700', path]);
    const options = `size=${sizeBytes},mode=0700`;
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'iscsi-nbd-test', path]);
    this.#mounted.push(path);
    return path;
  }

  /** What `from` has at this instant, without the locks of the processes that made it. */
  asLeft(from: string, name: string): string {
    const path = join(this.path, name);
    cpSync(from, path, { recursive: true, preserveTimestamps: true });
    // Node 20 keeps the mode of a folder, newer ones do not.
    chmodSync(path, statSync(from).mode);
    return path;
  }

  [Symbol.dispose](): void {
    for (const path of this.#mounted) execFileSync('umount', ['--lazy', path]);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Only root can mount; in CI the tests that need it run. */
export const cannotMount = process.getuid?.() !== 0 && process.env['CI'] === undefined;
