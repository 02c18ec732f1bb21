// A worker thread with the addon ADDON: it opens one of each kind of descriptor in FOLDER, leaves a
// blocking call under way, says 'ready', and ends as `how` says.
import { openSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parentPort, threadId, workerData } from 'node:worker_threads';

const { path, folder, how } = workerData;
const addon = createRequire(import.meta.url)(path);

addon.setSlab(0, new Uint8Array(1 << 20));
const listening = addon.listenUnix(join(folder, `${threadId}.sock`), 0o600);
new addon.NativeSocket(listening, true, new Int32Array(3), () => {}).watchReadable(true);
const [ours] = addon.socketPair();
const window = new Int32Array([0, 0, 1 << 20]);
new addon.NativeSocket(ours, false, window, () => {}).watchReadable(true);
// No reader has taken these two yet.
addon.connectTcp('127.0.0.1', 9);
new addon.NativeSocket(addon.socketPair()[0], false, window, () => {}).release();
// Locked and mapped: the lock is free only when both are gone.
const locked = openSync(join(folder, 'locked'), 'r+');
addon.tryLock(locked, true);
globalThis.mapped = addon.mapRange(locked, 0, 65536, true);
// Waits until a process reads the pipe.
addon.writeAttribute(join(folder, 'pipe'), 'x').catch(() => {});
parentPort.postMessage('ready');

setInterval(() => {}, 1000);
const ends = {
  terminate: () => {},
  exit: () => process.exit(3),
  throw: () => {
    throw new Error('a bug');
  },
  heap: () => {
    for (const all = []; ; ) all.push(new Array(1000).fill(all.length));
  },
};
setTimeout(ends[how], 1);
