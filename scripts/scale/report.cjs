// Preloaded into a process that is measured: at SIGUSR2 it collects the garbage of each of its
// threads and leaves what its memory is in the file that SCALE_REPORT names. A worker leaves the
// number of its thread in a file beside it.
const { readlinkSync, renameSync, writeFileSync } = require('node:fs');
const { basename } = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');
const { isMainThread, workerData } = require('node:worker_threads');

/** In which a worker collects its garbage. */
const WORKERS_MS = 300;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');
const path = process.env['SCALE_REPORT'];
if (path === undefined) throw new Error('SCALE_REPORT names no file');

const requests = new BroadcastChannel('scale-report');
requests.unref();

if (isMainThread) {
  process.on('SIGUSR2', async () => {
    requests.postMessage('collect');
    collectGarbage();
    await sleep(WORKERS_MS);
    writeFileSync(`${path}.new`, JSON.stringify(process.memoryUsage()));
    renameSync(`${path}.new`, path);
  });
} else {
  requests.onmessage = () => collectGarbage();
  writeFileSync(`${path}.thread-${workerData.index}`, basename(readlinkSync('/proc/thread-self')));
}
