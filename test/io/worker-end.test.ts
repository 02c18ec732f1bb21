/** What is left in the process of a worker thread that ends, however it ends. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { tryLock } from '../../src/io/shared-memory.js';

const PROGRAM = new URL('worker-end.program.mjs', import.meta.url);
const path = fileURLToPath(new URL('../../build/Release/iscsi_nbd.node', import.meta.url));

let folder: string;

beforeAll(() => {
  folder = mkdtempSync('/dev/shm/iscsi-nbd-worker-');
  execFileSync('mkfifo', [join(folder, 'pipe')]);
  writeFileSync(join(folder, 'locked'), '');
  truncateSync(join(folder, 'locked'), 65_536);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Sockets and files of the folder that this process has open. */
function descriptors(): number {
  const names = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return names.filter((name) => name.startsWith('socket:') || name.startsWith(folder)).length;
}

function threads(): number {
  return readdirSync('/proc/self/task').length;
}

async function ended(how: string): Promise<number> {
  const worker = new Worker(PROGRAM, {
    workerData: { path, folder, how },
    resourceLimits: { maxOldGenerationSizeMb: 16 },
  });
  worker.on('error', () => {});
  const exit = new Promise<number>((resolve) => worker.once('exit', resolve));
  await new Promise((resolve) => worker.once('message', resolve));
  if (how === 'terminate') await worker.terminate();
  return exit;
}

it.each(['terminate', 'exit', 'throw', 'heap'])(
  'a worker that ends by %s leaves no descriptor and no lock',
  async (how) => {
    const before = descriptors();
    await ended(how);
    expect(descriptors()).toBe(before);
    const again = openSync(join(folder, 'locked'), 'r+');
    expect(tryLock(again, true)).toBe(true);
    closeSync(again);
  },
);

it('a blocking call outlives its worker without harm', async () => {
  await ended('exit');
  const waiting = threads();
  const reader = openSync(join(folder, 'pipe'), constants.O_RDONLY | constants.O_NONBLOCK);
  await vi.waitFor(() => expect(threads()).toBeLessThan(waiting));
  closeSync(reader);
});
