import { mkdir, mkdtemp, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import {
  type Attached,
  attach,
  attributeOf,
  cleanUp,
  configuredDevices,
  run,
  shell,
  sizeOf,
} from './attached.js';
import { allLuns, MIB, sessionsOf, sha256 } from './targets.js';

let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'attach-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

describe('attach of a kernel device', () => {
  it('the device holds a file system, and the target has its bytes after the end', async () => {
    const file = join(folder, 'disk');
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: 48 * MIB }] });
    const attached = await attach(tgt.url());
    const { device } = attached;
    expect(attached.ready[0]).toMatchObject({
      device: expect.stringMatching(/^\/dev\/nbd\d+$/),
      lun: 1,
      sizeBytes: 48 * MIB,
      blockSizeBytes: 512,
      readOnly: false,
      sessionId: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(await sizeOf(device)).toBe(48 * MIB);
    expect(await sessionsOf(tgt)).toBe(1);
    const mount = join(folder, 'mnt');
    await mkdir(mount);
    await shell(`
      mkfs.ext4 -q ${device}; mount ${device} ${mount}
      mkdir ${mount}/many; for n in $(seq 60); do echo "file $n" >${mount}/many/$n; done
      dd if=/dev/urandom of=${mount}/large bs=1M count=12 status=none
      sha256sum ${mount}/large | cut -c1-64 >${folder}/sum; sync; umount ${mount}
      e2fsck -fn ${device}
    `);
    const link = `/dev/iscsi-nbd/${tgt.iqn}/lun1`;
    expect(await readlink(link)).toBe(device);
    const throughDevice = await sha256(device);
    expect(await attached.end('SIGTERM')).toBe(0);
    expect(await sizeOf(device)).toBe(0);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
    await expect(readlink(link)).rejects.toThrow('ENOENT');
    expect(await sha256(file)).toBe(throughDevice);
    await shell(`
      e2fsck -fn ${file}
      test "$(debugfs -R 'cat /large' ${file} | sha256sum | cut -c1-64)" = "$(cat ${folder}/sum)"
      test "$(debugfs -R 'cat /many/60' ${file})" = 'file 60'
    `);
  });

  it('a second attach has the same device name, and leaves no state behind', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 8 * MIB }] });
    const first = await attach(tgt.url());
    expect(await first.end('SIGINT')).toBe(0);
    const second = await attach(tgt.url());
    expect(second.device).toBe(first.device);
    expect(second.sessionId).not.toBe(first.sessionId);
    expect(await second.end('SIGTERM')).toBe(0);
    expect(await run('find', '/var/lib/iscsi-nbd/sessions', '-type', 'f')).toBe('');
  });

  it('a URL without a LUN attaches every disk of the target', async () => {
    await using tgt = await startTgt({
      luns: [{ sizeBytes: 4 * MIB }, { sizeBytes: 8 * MIB, blockSize: 4096 }],
    });
    const attached = await attach(allLuns(tgt), [], { count: 2 });
    const byLun = attached.ready.map((event) => [event['lun'], event['sizeBytes']]);
    expect(byLun).toEqual([
      [1, 4 * MIB],
      [2, 8 * MIB],
    ]);
    const second = String(attached.ready[1]?.['device']);
    expect(await attributeOf(second, 'queue/logical_block_size')).toBe('4096');
    await shell(`
      for d in ${attached.device} ${second}; do
        dd if=/dev/urandom of=${folder}/bytes bs=1M count=4 status=none
        dd if=${folder}/bytes of=$d bs=1M oflag=direct status=none
        cmp -n ${4 * MIB} ${folder}/bytes $d
      done
    `);
    expect(await attached.end('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
  });
});

describe('a device in use', () => {
  let attached: Attached;

  it('SIGTERM leaves the device, reports its holder, and removes it when it is released', async () => {
    const file = join(folder, 'disk');
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: 64 * MIB }] });
    attached = await attach(tgt.url());
    await shell(`mkfs.ext4 -q ${attached.device}; mount ${attached.device} ${folder}`);
    attached.signal('SIGTERM');
    const refused = await attached.waitFor('deviceInUse');
    expect(refused).toMatchObject({ lun: 1, device: attached.device });
    expect(refused['holders']).toContain(`is mounted on ${folder}`);
    await shell(
      `dd if=/dev/urandom of=${folder}/later bs=1M count=8 status=none; umount ${folder}`,
    );
    expect(await attached.exited).toBe(0);
    expect(await configuredDevices()).toEqual([]);
    await shell(`e2fsck -fn ${file}`);
  });

  it('a second signal removes the device, and its mount can be unmounted', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    attached = await attach(tgt.url());
    await shell(`mkfs.ext4 -q ${attached.device}; mount ${attached.device} ${folder}`);
    attached.signal('SIGTERM');
    await attached.waitFor('deviceInUse');
    attached.signal('SIGTERM');
    await attached.exited;
    await expect(run('dd', `if=${attached.device}`, 'count=8', 'iflag=direct')).rejects.toThrow(
      'Input/output error',
    );
    await run('umount', folder);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
  });
});
