import { execFile } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { cannotMount } from '../helpers/memory-folder.js';

const SCRIPT = fileURLToPath(new URL('../../scripts/install', import.meta.url));
const NOBODY = 65534;
/** In this namespace nothing can be installed. */
const READ_ONLY = `
  for folder in /usr /etc; do mount --bind $folder $folder; mount -o remount,bind,ro $folder; done
  exec "$0"`;

let folder = '';
let node = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'install-'));
  chmodSync(folder, 0o755);
  node = join(folder, 'alice', 'bin', 'node');
  mkdirSync(dirname(node), { recursive: true });
  copyFileSync('/bin/true', node);
  chmodSync(node, 0o755);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What scripts/install says to the Node that it is to install. */
function refusal(): Promise<string> {
  const args = ['--mount', '--propagation', 'private', 'sh', '-ec', READ_ONLY, SCRIPT];
  const env = { ...process.env, ISCSI_NBD_NODE: node };
  return new Promise((resolve) => {
    execFile('unshare', args, { env }, (error, _stdout, stderr) => {
      resolve(error === null ? 'installed' : stderr);
    });
  });
}

it.skipIf(cannotMount).each([
  ['that is another user’s', 'alice/bin/node', (path: string) => chownSync(path, NOBODY, NOBODY)],
  ['that others can write to', 'alice/bin/node', (path: string) => chmodSync(path, 0o757)],
  ['in a folder of another user', 'alice', (path: string) => chownSync(path, NOBODY, NOBODY)],
  ['in a folder that others can write to', 'alice/bin', (path: string) => chmodSync(path, 0o777)],
])(
  'a Node %s is not what root runs at every start',
  { timeout: 60_000 },
  async (_what, name, spoil) => {
    const path = join(folder, name);
    spoil(path);
    expect(await refusal()).toContain(`others than root can replace ${path}. Install Node.js`);
  },
);
