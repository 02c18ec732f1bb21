// Preloaded into a daemon with one worker (`--import`): at SIGUSR2 the worker collects its garbage and
// says in the file COSTS_FILE what it has cost since it began, and what it has allocated since the
// last time.
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';
import { CopySpy } from './copy-spy.mjs';

const SAMPLING = {
  samplingInterval: 8192,
  includeObjectsCollectedByMajorGC: true,
  includeObjectsCollectedByMinorGC: true,
};
const requests = new BroadcastChannel('costs');
requests.unref();

function sizeOf({ selfSize, children }) {
  return children.reduce((sum, child) => sum + sizeOf(child), selfSize);
}

function observe() {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc');
  const spy = new CopySpy();
  const session = new Session();
  let isSampling = false;
  const allocatedSince = async () => {
    if (!isSampling) return 0;
    const { profile } = await session.post('HeapProfiler.stopSampling');
    return sizeOf(profile.head);
  };
  requests.onmessage = async () => {
    // Only now, since the thread may not wait for it before it starts.
    const { native } = await import('../../dist/io/native.js');
    if (!isSampling) session.connect();
    const allocated = await allocatedSince();
    collectGarbage();
    const { loopCount: turns } = performance.nodeTiming.uvMetricsInfo;
    const { heapUsed } = process.memoryUsage();
    const costs = { ...native.counters(), turns, copied: spy.bytes, heapUsed, allocated };
    const path = process.env.COSTS_FILE;
    writeFileSync(`${path}.new`, JSON.stringify(costs));
    await session.post('HeapProfiler.startSampling', SAMPLING);
    isSampling = true;
    renameSync(`${path}.new`, path);
  };
}

if (isMainThread) process.on('SIGUSR2', () => requests.postMessage('report'));
else observe();
