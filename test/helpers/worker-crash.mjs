// Preloaded into a daemon with workers (`--import`): a worker crashes from within as soon as there
// is a file of its number in ISCSI_NBD_CRASH, in the way that the file says.
import { existsSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, workerData } from 'node:worker_threads';

const WAYS = {
  throw: () => {
    throw new Error('crashed on purpose');
  },
  heap: () => {
    for (const all = []; ; ) all.push(new Array(1000).fill(all.length));
  },
};

if (!isMainThread) {
  const path = join(process.env.ISCSI_NBD_CRASH, String(workerData.index));
  setInterval(() => {
    if (!existsSync(path)) return;
    const way = readFileSync(path, 'utf8');
    unlinkSync(path);
    WAYS[way]();
  }, 20).unref();
}
