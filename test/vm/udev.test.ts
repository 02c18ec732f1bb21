import { type ChildProcess, spawn } from 'node:child_process';
import { copyFile, mkdir, realpath } from 'node:fs/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { attach, cleanUp, configuredDevices, disconnect, run, shell, until } from './attached.js';
import { MIB, sha256 } from './targets.js';

const UDEVD = '/lib/systemd/systemd-udevd';
/** Rounds in which a stale file could name another disk. */
const ROUNDS = Number(process.env['UDEV_ROUNDS'] ?? 2);

let udevd: ChildProcess;

beforeEach(async () => {
  await mkdir('/run/udev/rules.d', { recursive: true });
  await copyFile('packaging/udev/60-iscsi-nbd.rules', '/run/udev/rules.d/60-iscsi-nbd.rules');
  udevd = spawn(UDEVD, [], { stdio: 'ignore' });
  await until(
    () =>
      run('udevadm', 'control', '--ping').then(
        () => true,
        () => false,
      ),
    60_000,
    () => 'udevd to answer',
  );
});

afterEach(async () => {
  await cleanUp();
  udevd.kill('SIGKILL');
});

it('the shipped udev rule names disks and partitions as those of other iSCSI initiators', async () => {
  await using tgt = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
  const attached = await attach(tgt.url());
  const { device } = attached;
  const byPath = `/dev/disk/by-path/ip-127.0.0.1:${tgt.port}-iscsi-${tgt.iqn}-lun-1`;
  const target = () => realpath(byPath).catch(() => null);
  await until(
    async () => (await target()) === device,
    30_000,
    () => `${byPath} to be ${device}`,
  );
  const ids = await shell(`find /dev/disk/by-id -lname '*/${device.slice('/dev/'.length)}'`);
  expect(ids.trim().split('\n').length).toBeGreaterThan(0);
  expect(ids).toMatch(/\/(wwn-0x[0-9a-f]+|iscsi-nbd-\S+)$/m);
  await shell(`echo 'start=2048, size=8192' | sfdisk -q ${device}; udevadm settle -t 20`);
  expect(await realpath(`${byPath}-part1`)).toBe(`${device}p1`);
  expect(await sha256(byPath)).toBe(await sha256(device));
  await run('udevadm', 'settle', '-t', '20');
  expect(await attached.end('SIGTERM')).toBe(0);
  await until(
    async () => (await target()) === null,
    30_000,
    () => `${byPath} to go`,
  );
});

it('a path that comes later has a name, which goes with it, and the disk keeps its others', async () => {
  await using tgt = await startTgt({ luns: [{ sizeBytes: 16 * MIB }], address: '0.0.0.0' });
  await using daemon = new DaemonProcess({ devices: true });
  await daemon.start();
  const multipath = ['--multipath', 'auto'];
  const portals = ['127.0.0.1', '127.0.0.2'].map((host) => `${host}:${tgt.port}`);
  const names = portals.map((portal) => `/dev/disk/by-path/ip-${portal}-iscsi-${tgt.iqn}-lun-1`);
  const named = () => Promise.all(names.map((name) => realpath(name).catch(() => null)));
  const become = async (wished: readonly (string | null)[]) => {
    let seen: readonly (string | null)[] = [];
    await until(
      async () => {
        seen = await named();
        return seen.join() === wished.join();
      },
      60_000,
      () => `the names to be of ${wished}, not of ${seen}`,
    );
  };
  await daemon.json('login', portals[0] ?? '', tgt.iqn, ...multipath);
  const [device = ''] = (await configuredDevices()).map((index) => `/dev/nbd${index}`);
  await become([device, null]);
  const ids = () => shell(`find /dev/disk/by-id -lname '*/${device.slice('/dev/'.length)}' | sort`);
  const before = await ids();
  await daemon.json('login', portals[1] ?? '', tgt.iqn, ...multipath);
  await become([device, device]);
  expect(await ids()).toBe(before);
  const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
  const second = sessions[0]?.paths[1]?.UniqueSessionId ?? '';
  await daemon.until(async () => (await daemon.run('logout', second)).code === 0);
  await become([device, null]);
  expect((await daemon.run('logout', tgt.iqn)).code).toBe(0);
  await become([null, null]);
  expect(await daemon.stop()).toBe(0);
});

it('what a killed process left of a disk never names the disk that gets its device', {
  timeout: 600_000 + ROUNDS * 10_000,
}, async () => {
  await using first = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
  await using second = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
  for (let round = 0; round < ROUNDS; round += 1) {
    const killed = await attach(first.url());
    await killed.end('SIGKILL');
    await disconnect(killed.device);
    await until(
      async () => (await configuredDevices()).length === 0,
      30_000,
      () => `${killed.device} to go`,
    );
    await run('udevadm', 'settle', '-t', '20');
    const monitor = spawn('stdbuf', ['-oL', 'udevadm', 'monitor', '--udev', '--property']);
    let announced = '';
    monitor.stdout.on('data', (bytes: Buffer) => {
      announced += bytes.toString();
    });
    const isHeard = () => announced.includes('will print');
    await until(isHeard, 30_000, () => 'udevadm monitor');
    const attached = await attach(second.url());
    expect(attached.device).toBe(killed.device);
    await until(
      () => announced.includes(`ID_PATH=ip-127.0.0.1:${second.port}-`),
      30_000,
      () => 'the names of the second disk',
    );
    expect(await attached.end('SIGTERM')).toBe(0);
    await run('udevadm', 'settle', '-t', '20');
    monitor.kill();
    expect(announced).not.toContain(`127.0.0.1:${first.port}-`);
  }
});
