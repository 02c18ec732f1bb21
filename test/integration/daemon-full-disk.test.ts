/** A daemon whose state directory has no room left. */
import { mkdirSync, readdirSync, statfsSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import type { TargetServer } from '../../src/target/server.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { cannotMount, MemoryFolder } from '../helpers/memory-folder.js';
import { nbdsh } from '../helpers/served-disk.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const TARGET = 'iqn.2001-04.com.example:disk';

let server: TargetServer;
beforeEach(async () => {
  const disk = TargetDisk.ram({ sizeBytes: 1 << 20 });
  ({ server } = await embeddedTarget({ name: TARGET, luns: { 0: disk } }));
});
afterEach(() => server.close());

/** Takes all the room of a file system that is small. */
function fill(folder: string): void {
  const { bfree, bsize } = statfsSync(folder);
  writeFileSync(join(folder, 'more'), Buffer.alloc(bfree * bsize));
}

it.skipIf(cannotMount)(
  'a daemon that was killed comes back with its session though its state directory is full',
  async () => {
    using memory = new MemoryFolder();
    await using daemon = new DaemonProcess();
    const state = memory.mount('state', 1 << 18);
    symlinkSync(state, join(daemon.folder, 'state'));
    await daemon.start();
    const login = ['login', server.portal, TARGET, '--persistent'];
    const { UniqueSessionId } = await daemon.json<{ UniqueSessionId: string }>(...login);
    fill(state);
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${TARGET}/0`);
    const socket = join(daemon.folder, 'nbd', `${UniqueSessionId}.sock`);
    await nbdsh(`nbd+unix:///0?socket=${socket}`, ["h.pwrite(b'A' * 512, 0)", 'h.flush()']);
    expect(daemon.log).toContain('cannot be written and stays as it is');
  },
);

it.skipIf(cannotMount)(
  'a daemon without room for its first file says so, and leaves nothing there',
  async () => {
    using memory = new MemoryFolder();
    await using daemon = new DaemonProcess();
    const state = memory.mount('state', 1 << 18);
    mkdirSync(join(state, 'own'), { mode: 0o700 });
    symlinkSync(join(state, 'own'), join(daemon.folder, 'state'));
    fill(state);
    daemon.launch();
    expect(await daemon.ended).toBe(1);
    expect(daemon.log).toMatch(/The state directory \S+ cannot be written \(ENOSPC\)\. Make room/);
    expect(readdirSync(join(state, 'own'))).toEqual([]);
  },
);
