import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { attach, cleanUp, configuredDevices, run, shell, stuckTasks } from './attached.js';
import { MIB } from './targets.js';

let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'outage-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

describe('a target that is killed under a mounted device', () => {
  it('a target that comes back is awaited: no error, and the written data are there', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    const attached = await attach(tgt.url(), ['--reconnect-interval', '1']);
    await shell(`mkfs.ext4 -q ${attached.device}; mount ${attached.device} ${folder}`);
    const writing = shell(`
      cd ${folder}; for n in $(seq 40); do
        dd if=/dev/urandom of=f$n bs=64k count=4 conv=fsync status=none; sha256sum f$n >>sums
      done; sha256sum -c --quiet sums
    `);
    writing.catch(() => undefined);
    await tgt.kill();
    await attached.waitFor('sessionState', { to: 'reconnecting' });
    await tgt.restart();
    await attached.waitFor('sessionState', { from: 'reconnecting', to: 'loggedIn' });
    await writing;
    await shell(`umount ${folder}; e2fsck -fn ${attached.device}`);
    expect(attached.events.some((event) => event.event === 'ioError')).toBe(false);
    expect(await attached.end('SIGTERM')).toBe(0);
  });

  it('a target that loses its write cache fails the next flush, once, if nothing is retained', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 8 * MIB }] });
    const flags = ['--reconnect-interval', '1', '--retain-writes', 'never'];
    const attached = await attach(tgt.url(), flags);
    const write = (...more: string[]) =>
      run(
        'dd',
        'if=/dev/zero',
        `of=${attached.device}`,
        'bs=4k',
        'count=1',
        'oflag=direct',
        ...more,
      );
    await write();
    await tgt.restart();
    await attached.waitFor('sessionState', { from: 'reconnecting', to: 'loggedIn' });
    await expect(write('conv=fsync')).rejects.toThrow('Input/output error');
    await write('conv=fsync');
    expect(await attached.end('SIGTERM')).toBe(0);
  });

  it('a target that stays away causes EIO after the removal latency, and its device returns after an unmount', async () => {
    const mount = join(folder, 'mnt');
    await mkdir(mount);
    const file = join(folder, 'disk');
    await using tgt = await startTgt({
      luns: [{ file, sizeBytes: 64 * MIB }],
    });
    const flags = ['--reconnect-interval', '1', '--removal-latency', '5'];
    const attached = await attach(tgt.url(), flags);
    const { device } = attached;
    await shell(`mkfs.ext4 -q ${device}; mount ${device} ${mount}; echo kept >${mount}/kept; sync`);
    await tgt.kill();
    const away = await attached.waitFor('sessionState', { to: 'reconnecting' });
    await expect(
      run('dd', 'if=/dev/zero', `of=${mount}/lost`, 'bs=4k', 'count=1', 'conv=fsync'),
    ).rejects.toThrow(/Input\/output error|Read-only/);
    const gone = await attached.waitFor('deviceRemoved', { device });
    const latencyMs = Date.parse(String(gone['time'])) - Date.parse(String(away['time']));
    expect(latencyMs).toBeGreaterThan(4900);
    expect(latencyMs).toBeLessThan(15_000);
    console.log(`removed ${latencyMs} ms after the loss, with a latency of 5000 ms`);
    // The kernel keeps the node until the last close; what is asked of it fails at once.
    await expect(
      run('dd', `if=${device}`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct'),
    ).rejects.toThrow('Input/output error');
    await tgt.restart();
    const inUse = await attached.waitFor('deviceInUse', { device });
    expect(inUse['holders']).toContain(`is mounted on ${mount}`);
    const seen = attached.events.length;
    await run('umount', mount);
    await attached.waitFor('deviceAttached', { device }, seen);
    expect(await stuckTasks()).toEqual([]);
    await shell(`e2fsck -fy ${device} || test $? = 1; mount ${device} ${mount}
      test "$(cat ${mount}/kept)" = kept; umount ${mount}`);
    expect(await attached.end('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toEqual([]);
  });
});
