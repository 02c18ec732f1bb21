/** The packages of this clone, made by scripts/package. */
import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Workplace } from '../helpers/command-process.js';

export const CLONE = fileURLToPath(new URL('../../', import.meta.url));

export type Run = { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv };

/** What the command prints to its standard output; rejects with what it says if it fails. */
export async function output(command: string, args: readonly string[], options: Run = {}) {
  const { env = process.env, ...rest } = options;
  const run = promisify(execFile);
  return (await run(command, args, { ...rest, env, maxBuffer: 64 << 20 })).stdout;
}

/** Builds packages of `kind` into a new folder of `place`. Returns the paths by file name. */
export async function build(
  place: Workplace,
  kind: 'deb' | 'npm',
  folder: string,
): Promise<ReadonlyMap<string, string>> {
  const out = place.file(folder);
  await mkdir(place.file('tmp', folder), { recursive: true });
  // Another folder for what is temporary, so that a path that gets into a package is seen.
  const env = { ...process.env, TMPDIR: place.file('tmp', folder) };
  await output('scripts/package', [kind, '--fast', '--out', out], { cwd: CLONE, env });
  return new Map((await readdir(out)).sort().map((name) => [name, join(out, name)]));
}
