import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { native } from '../../src/io/native.js';

let folder = '';
let umaskBefore = 0;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'listening-'));
  umaskBefore = process.umask(0);
});
afterEach(() => {
  process.umask(umaskBefore);
  rmSync(folder, { recursive: true });
});

it('a listening socket has its mode from the instant at which its path exists', async () => {
  const watcher = watch(folder);
  const events: string[] = [];
  watcher.on('change', (event, name) => events.push(`${event} ${name}`));
  const first = once(watcher, 'change');
  const fd = native.listenUnix(join(folder, 's'), 0o600);
  await first;
  expect(statSync(join(folder, 's')).mode & 0o777).toBe(0o600);
  // A change of the mode afterwards is an event, too, at the path and whatever lies there then.
  await sleep(50);
  watcher.close();
  new native.NativeSocket(fd, true, new Int32Array(3), () => undefined).close();
  expect(events).toEqual(['rename s']);
});
