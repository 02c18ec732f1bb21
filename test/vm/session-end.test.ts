/**
 * One LUN of a target is removed there while another one is mounted, with data that only the
 * kernel has: nothing that ends the session in order may cost that data. tgt as it is by default.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { attach, cleanUp, configuredDevices, shell, until } from './attached.js';
import { allLuns, MIB } from './targets.js';

let folder = '';
let backing = '';
let mount = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'session-end-'));
  [backing, mount] = [join(folder, 'backing'), join(folder, 'mnt')];
  await mkdir(mount);
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

function twoLuns(): Promise<Tgt> {
  return startTgt({ luns: [{ file: backing, sizeBytes: 64 * MIB }, { sizeBytes: 8 * MIB }] });
}

/** ext4 with 8 MiB that have not been written back. */
async function mountWithUnsyncedData(device: string): Promise<void> {
  await shell(`
    mkfs.ext4 -q ${device}; mount ${device} ${mount}
    echo 100000 >/proc/sys/vm/dirty_expire_centisecs
    echo 100000 >/proc/sys/vm/dirty_writeback_centisecs
    head -c 8M /dev/urandom >${folder}/data
    cp ${folder}/data ${mount}/data
  `);
}

/** LUN 2, which no process uses, is unmapped at the target, and the initiator notices. */
async function unmapLun2(tgt: Tgt, device: string): Promise<void> {
  const lun = ['--tid', '1', '--lun', '2'];
  await tgt.adm('--lld', 'iscsi', '--mode', 'logicalunit', '--op', 'delete', ...lun);
  await shell(`timeout 2 dd if=${device} of=/dev/null bs=4k count=1 iflag=direct 2>&1 || true`);
}

async function expectDataInBackingFile(): Promise<void> {
  await shell(`
    sync -f ${mount}/data; umount ${mount}
    e2fsck -fn ${backing}
    debugfs -R 'dump /data ${folder}/found' ${backing} 2>&1
    cmp ${folder}/data ${folder}/found
  `);
}

describe('a mounted disk with unwritten data, beside a LUN that was unmapped at the target', () => {
  it('the mounted disk is awaited by attach after SIGTERM', { timeout: 600_000 }, async () => {
    await using tgt = await twoLuns();
    const attached = await attach(allLuns(tgt), [], { count: 2 });
    const [one, two] = attached.ready.map((event) => String(event['device'])) as [string, string];
    await mountWithUnsyncedData(one);
    await unmapLun2(tgt, two);
    attached.signal('SIGTERM');
    await attached.waitFor('deviceInUse', { lun: 1 });
    await expectDataInBackingFile();
    expect(await attached.exited).toBe(0);
    expect(await configuredDevices()).toEqual([]);
  });

  it('the mounted disk refuses the logout of its session in a daemon, and outlives a restart', {
    timeout: 900_000,
  }, async () => {
    await using tgt = await twoLuns();
    await using daemon = new DaemonProcess({ devices: true });
    await daemon.start();
    await daemon.run('login', `127.0.0.1:${tgt.port}`, tgt.iqn);
    const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
    const devices = sessions[0]?.devices ?? [];
    const deviceOf = (lun: number) => devices.find((each) => each.lun === lun)?.device ?? '';
    await mountWithUnsyncedData(deviceOf(1));
    await unmapLun2(tgt, deviceOf(2));
    expect((await daemon.run('logout', tgt.iqn)).code).toBe(28);
    expect(await daemon.stop('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toContain(Number(/\d+$/.exec(deviceOf(1))?.[0]));
    await daemon.start('--wait-for', `${tgt.iqn}/1`);
    await until(
      async () => {
        const now = await daemon.json<{ sessions: SessionView[] }>('sessions');
        return now.sessions[0]?.state === 'loggedIn';
      },
      60_000,
      () => 'the session to be back',
    );
    // tgt has a write cache and says at each login that it may be lost: the first flush fails by
    // the write-cache rule, unless the daemon has flushed before it ended.
    await expectDataInBackingFile();
  });
});
