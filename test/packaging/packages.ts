/** The packages of this clone, made by scripts/package. */
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Workplace } from '../helpers/command-process.js';

/** The program in a package for Debian. */
export const MAIN_FILE = 'usr/lib/iscsi-nbd/dist/boot/main.mjs';
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
  kind: 'deb' | 'npm' | 'image',
  folder: string,
): Promise<ReadonlyMap<string, string>> {
  const out = place.file(folder);
  await mkdir(place.file('tmp', folder), { recursive: true });
  // Another folder for what is temporary, so that a path that gets into a package is seen.
  const env = { ...process.env, TMPDIR: place.file('tmp', folder) };
  await output('scripts/package', [kind, '--fast', '--out', out], { cwd: CLONE, env });
  return new Map((await readdir(out)).sort().map((name) => [name, join(out, name)]));
}

/** Builds the packages for Debian with these versions into the folder `packages`. */
export async function buildVersions(packages: string, versions: readonly string[]): Promise<void> {
  for (const version of versions) {
    const args = ['deb', '--fast', '--version', version, '--out', packages];
    await output('scripts/package', args, { cwd: CLONE });
  }
}

/** Makes version `to` of iscsi-nbd of the package with version `from`, with `changes` to its files. */
export async function changedPackage(
  what: { packages: string; from: string; to: string; place: Workplace },
  changes: Readonly<Record<string, (text: string) => string>>,
): Promise<void> {
  const { packages, from, to } = what;
  const folder = what.place.file(`changed-${to}`);
  await output('dpkg-deb', ['-R', `${packages}/iscsi-nbd_${from}_amd64.deb`, folder]);
  const all = {
    'DEBIAN/control': (text: string) => text.replace(`Version: ${from}`, `Version: ${to}`),
    ...changes,
  };
  for (const [name, change] of Object.entries(all)) {
    const text = await readFile(`${folder}/${name}`, 'utf8');
    await writeFile(`${folder}/${name}`, change(text));
  }
  const file = `${packages}/iscsi-nbd_${to}_amd64.deb`;
  await output('dpkg-deb', ['-Znone', '--root-owner-group', '-b', folder, file]);
}
