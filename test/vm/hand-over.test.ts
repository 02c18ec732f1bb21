/**
 * Devices that one process leaves to the next, on a tgt as it is by default: it has a volatile
 * write cache, and reports at each login that it may have lost it (29h).
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { attach, cleanUp, configuredDevices, run, shell, until } from './attached.js';
import { MIB, sessionsOf } from './targets.js';

const RECORDS = '/var/lib/iscsi-nbd/sessions';
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'hand-over-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

/** Its errno's name, or `none`. */
async function fsync(device: string): Promise<string> {
  const script = [
    'import errno, os, sys',
    'fd = os.open(sys.argv[1], os.O_RDWR)',
    'try:',
    '  os.fsync(fd)',
    "  print('none')",
    'except OSError as error:',
    '  print(errno.errorcode[error.errno])',
  ];
  return (await run('python3', '-c', script.join('\n'), device)).trim();
}

/** Writes without a flush: the disk has acknowledged it from its cache. */
function write(device: string): Promise<string> {
  return run('dd', `if=${folder}/bytes`, `of=${device}`, 'bs=64k', 'count=1', 'oflag=direct');
}

/** Writes that the kernel has finished. */
async function writesOf(device: string): Promise<number> {
  const stat = await readFile(`/sys/block/${device.slice('/dev/'.length)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[4]);
}

async function onlyRecord(): Promise<{ path: string; record: Record<string, unknown> }> {
  const names = (await readdir(RECORDS)).filter((name) => name.endsWith('.json'));
  expect(names).toHaveLength(1);
  const path = join(RECORDS, names[0] ?? '');
  return { path, record: JSON.parse(await readFile(path, 'utf8')) };
}

describe('attach --keep-devices on a disk with a volatile write cache', () => {
  it('an attach that leaves its device is followed by one whose fsync does not fail', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
    await run('dd', 'if=/dev/urandom', `of=${folder}/bytes`, 'bs=64k', 'count=1');
    const first = await attach(tgt.url(), ['--keep-devices']);
    await write(first.device);
    expect(await first.end('SIGTERM')).toBe(0);
    expect((await onlyRecord()).record).toMatchObject({ version: 2, handedOver: true });
    const second = await attach(tgt.url(), ['--keep-devices']);
    expect([second.device, second.sessionId]).toEqual([first.device, first.sessionId]);
    expect((await onlyRecord()).record['handedOver']).toBe(undefined);
    expect(await fsync(second.device)).toBe('none');
    await shell(`cmp -n 65536 ${folder}/bytes ${second.device}`);
    await write(second.device);
    // What the dead process retained is written again.
    await second.end('SIGKILL');
    const third = await attach(tgt.url(), ['--keep-devices']);
    expect(await fsync(third.device)).toBe('none');
    await shell(`cmp -n 65536 ${folder}/bytes ${third.device}`);
    await write(third.device);
    // Without retained writes the loss is not known: then the rule about volatile caches holds.
    await third.end('SIGKILL');
    const fourth = await attach(tgt.url(), ['--retain-writes', 'never']);
    expect(await fsync(fourth.device)).toBe('EIO');
    expect(await fsync(fourth.device)).toBe('none');
    expect(await fourth.end('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
    expect(await readdir(RECORDS)).toEqual([]);
  });

  it('requests on the link at a hand-over are answered, and none waits for a timer', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
    const first = await attach(tgt.url(), ['--keep-devices']);
    await shell('dmesg --clear');
    const load = run(
      ...['fio', '--name=load', `--filename=${first.device}`, '--size=8m', '--rw=randwrite'],
      ...['--bs=16k', '--direct=1', '--ioengine=libaio', '--iodepth=8', '--rate_iops=200'],
      ...['--time_based', '--runtime=12', '--verify=crc32c', '--verify_backlog=64'],
    );
    await until(
      async () => (await writesOf(first.device)) > 100,
      60_000,
      () => 'writes of the load',
    );
    expect(await first.end('SIGTERM')).toBe(0);
    const second = await attach(tgt.url(), ['--keep-devices']);
    await load;
    // The kernel says so of a request that has had no answer for longer than its timer.
    expect(await shell('dmesg | grep "Possible stuck request" || true')).toBe('');
    expect(await second.end('SIGTERM')).toBe(0);
    await (await attach(tgt.url())).end('SIGTERM');
    expect(await configuredDevices()).toEqual([]);
  });

  it('a mounted file system stays writable over the hand-over, with what was not synced', async () => {
    const file = join(folder, 'disk');
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: 48 * MIB }] });
    const mount = join(folder, 'mnt');
    await mkdir(mount);
    const first = await attach(tgt.url(), ['--keep-devices']);
    await shell(`mkfs.ext4 -q ${first.device}; mount ${first.device} ${mount}
      dd if=/dev/urandom of=${folder}/data bs=1M count=4 status=none; cp ${folder}/data ${mount}`);
    expect(await first.end('SIGTERM')).toBe(0);
    const second = await attach(tgt.url(), ['--keep-devices']);
    await shell(`sync -f ${mount}/data; touch ${mount}/more; sync; umount ${mount}
      e2fsck -fn ${second.device}`);
    expect(await second.end('SIGTERM')).toBe(0);
    await (await attach(tgt.url())).end('SIGTERM');
    await shell(
      `debugfs -R 'dump /data ${folder}/found' ${file} 2>&1; cmp ${folder}/data ${folder}/found`,
    );
    expect(await configuredDevices()).toEqual([]);
  });
});

describe('devices of a process that wrote a record of version 1', () => {
  it('devices of the version before are taken back under the same session', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 8 * MIB }] });
    const first = await attach(tgt.url());
    await first.end('SIGKILL');
    const { path, record } = await onlyRecord();
    const { sessionId, isid, targetName, disks, bootId, portalGroupTag } = record;
    const old = { version: 1, sessionId, isid, targetName, pid: first.pid, disks, bootId };
    await writeFile(path, `${JSON.stringify({ ...old, portalGroupTag })}\n`);
    const second = await attach(tgt.url());
    expect([second.device, second.sessionId]).toEqual([first.device, first.sessionId]);
    expect((await onlyRecord()).record).toMatchObject({ version: 2, isid, luns: [1] });
    expect(await second.end('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toEqual([]);
  });
});
