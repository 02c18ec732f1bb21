// Preloaded into a process that is measured: at SIGUSR2 it collects the garbage of each of its
// threads and leaves what its memory is in the file that SCALE_REPORT names. A worker leaves the
// number of its thread in a file beside it, and at SIGWINCH what its sockets have cost.
const { readlinkSync, renameSync, writeFileSync } = require('node:fs');
const { basename, join } = require('node:path');
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

/** The same instance of it as the worker's own, if it is not another build. */
const ADDON = join(__dirname, '../../build/Release/iscsi_nbd.node');

/**
 * @param {string} file
 * @param {object} facts
 */
function leave(file, facts) {
  writeFileSync(`${file}.new`, JSON.stringify(facts));
  renameSync(`${file}.new`, file);
}

const requests = new BroadcastChannel('scale-report');
requests.unref();

if (isMainThread) {
  process.on('SIGUSR2', async () => {
    requests.postMessage('collect');
    collectGarbage();
    await sleep(WORKERS_MS);
    leave(path, process.memoryUsage());
  });
  process.on('SIGWINCH', () => requests.postMessage('count'));
} else {
  requests.onmessage = ({ data }) => {
    if (data === 'collect') collectGarbage();
    else leave(`${path}.counters-${workerData.index}`, require(ADDON).counters());
  };
  writeFileSync(`${path}.thread-${workerData.index}`, basename(readlinkSync('/proc/thread-self')));
}
