import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell } from './attached.js';

const MIB = 1 << 20;

afterEach(() => cleanUp());

async function session(daemon: DaemonProcess): Promise<SessionView> {
  const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
  const [first] = sessions;
  if (first === undefined) throw new Error('there is no session');
  return first;
}

/** Writes the kernel has finished on a device (Documentation/block/stat.rst, field 5). */
async function writesTo(device: string): Promise<number> {
  const stat = await readFile(`/sys/block/${basename(device)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[4]);
}

describe('a daemon with kernel devices', () => {
  it('the session and its device survive two kills of the daemon under load, without an error', {
    timeout: 600_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true, retained: '/run/iscsi-nbd/retained' });
    await daemon.start();
    const login = ['login', `127.0.0.1:${tgt.port}`, tgt.iqn, '--persistent'];
    const { code, err } = await daemon.run(...login);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const before = await session(daemon);
    const device = before.devices[0]?.device ?? '';
    expect(device).toMatch(/^\/dev\/nbd\d+$/);
    const enough = join(daemon.folder, 'enough');
    const load = shell(`
      until test -e ${enough}; do
        fio --name=verify --filename=${device} --size=8m --rw=randwrite --bs=16k --iodepth=8 \\
          --ioengine=libaio --direct=1 --verify=crc32c --verify_backlog=256 --verify_state_save=0
      done
    `);
    load.catch(() => undefined);
    for (let kills = 0; kills < 2; kills += 1) {
      const before = await writesTo(device);
      await daemon.until(async () => (await writesTo(device)) > before + 100);
      await daemon.stop('SIGKILL');
      await daemon.start('--wait-for', `${tgt.iqn}/1`);
    }
    await shell(`touch ${enough}`);
    await load;
    const after = await session(daemon);
    expect(after.UniqueSessionId).toBe(before.UniqueSessionId);
    expect(after.ISID).toBe(before.ISID);
    expect(after.devices[0]?.device).toBe(device);
    expect(await daemon.run('logout', tgt.iqn)).toMatchObject({ code: 0, err: '' });
    expect(await configuredDevices()).toEqual([]);
    await daemon.stop();
  });

  it('a logout reports writes that may be lost (status 10), once, if nothing is retained', {
    timeout: 600_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true });
    await daemon.start();
    await daemon.run('login', `127.0.0.1:${tgt.port}`, tgt.iqn, '--retain-writes', 'never');
    const device = (await session(daemon)).devices[0]?.device ?? '';
    await shell(`dd if=/dev/zero of=${device} bs=64k count=4 oflag=direct 2>&1`);
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${tgt.iqn}/1`);
    // The device is back before the session is.
    await daemon.until(async () => (await session(daemon)).state === 'loggedIn');
    await shell(`dd if=${device} of=/dev/null bs=64k count=1 iflag=direct 2>&1`);
    const told = await daemon.run('logout', tgt.iqn);
    expect(told.code).toBe(10);
    expect(told.err).toMatch(/nbd\d+ could not flush what was written \(EIO\).*log it out again/);
    expect((await session(daemon)).state).toBe('loggedIn');
    expect(await daemon.run('logout', tgt.iqn)).toMatchObject({ code: 0, err: '' });
    expect(await configuredDevices()).toEqual([]);
  });

  it('a mounted device is left to the next daemon, which refuses its logout (status 28)', {
    timeout: 600_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true });
    await daemon.start();
    await daemon.run('login', `127.0.0.1:${tgt.port}`, tgt.iqn);
    const before = await session(daemon);
    const device = before.devices[0]?.device ?? '';
    const mount = join(daemon.folder, 'mnt');
    mkdirSync(mount);
    await shell(`mkfs.ext4 -q ${device}; mount ${device} ${mount}; echo kept >${mount}/file`);
    const refused = await daemon.run('logout', tgt.iqn);
    expect(refused.code).toBe(28);
    expect(refused.err).toMatch(/mounted|in use|held/);
    expect((await session(daemon)).state).toBe('loggedIn');
    expect(await daemon.stop('SIGTERM')).toBe(0);
    // It waits: what is written meanwhile is written later.
    const written = shell(`echo later >${mount}/later; sync`);
    await daemon.start('--wait-for', `${tgt.iqn}/1`);
    await written;
    const after = await session(daemon);
    expect(after.UniqueSessionId).toBe(before.UniqueSessionId);
    expect(after.devices[0]?.device).toBe(device);
    await shell(`
      test "$(cat ${mount}/file ${mount}/later)" = "$(printf 'kept\\nlater')"
      umount ${mount}; e2fsck -fn ${device}
    `);
    expect(await daemon.run('logout', tgt.iqn)).toMatchObject({ code: 0, err: '' });
    expect(await configuredDevices()).toEqual([]);
  });

  it.each([
    { words: 'of the only thread', workers: '0' },
    { words: 'of another worker', workers: '2' },
  ])(
    'a removed disk keeps its device name while a disk $words is attached, and returns under it',
    {
      timeout: 300_000,
    },
    async ({ workers }) => {
      await using one = await startTgt({ luns: [{ sizeBytes: 8 * MIB }] });
      await using two = await startTgt({
        iqn: 'iqn.2001-04.com.example:two',
        luns: [{ sizeBytes: 16 * MIB }],
      });
      await using daemon = new DaemonProcess({ devices: true });
      await daemon.start('--workers', workers);
      const sessionOf = async ({ iqn }: { readonly iqn: string }) => {
        const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
        return sessions.find(({ TargetiSCSIName }) => TargetiSCSIName === iqn);
      };
      const deviceOf = async (tgt: { readonly iqn: string }) =>
        (await sessionOf(tgt))?.devices[0]?.device ?? null;
      const timers = ['--removal-latency', '1', '--reconnect-interval', '1'];
      await daemon.json('login', `127.0.0.1:${one.port}`, one.iqn, ...timers);
      const name = await deviceOf(one);
      expect(name).toMatch(/^\/dev\/nbd\d+$/);
      await one.kill();
      await daemon.until(async () => (await deviceOf(one)) === null);
      await daemon.json('login', `127.0.0.1:${two.port}`, two.iqn);
      const other = await deviceOf(two);
      expect(other).toMatch(/^\/dev\/nbd\d+$/);
      expect(other).not.toBe(name);
      const inWorkers = [await sessionOf(one), await sessionOf(two)].map((view) => view?.worker);
      expect(new Set(inWorkers).size).toBe(workers === '0' ? 1 : 2);
      await one.restart();
      await daemon.until(async () => (await deviceOf(one)) === name);
      // Once no login expects the first disk any more, its name is free for others.
      expect((await daemon.run('logout', '--all')).code).toBe(0);
      await daemon.json('login', `127.0.0.1:${two.port}`, two.iqn);
      expect(await deviceOf(two)).toBe(name);
      expect((await daemon.run('logout', '--all')).code).toBe(0);
      expect(await configuredDevices()).toEqual([]);
      await daemon.stop();
    },
  );
});
