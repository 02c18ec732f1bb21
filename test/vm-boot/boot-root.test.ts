import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { ibftTable } from './ibft.js';
import { Machine } from './machine.js';

const exec = promisify(execFile);
const OUTAGES = 3;
const KILLS = 3;
/** QEMU's user network: the host's loopback, and the guest. */
const HOST = '10.0.2.2';
const GUEST = '10.0.2.15';
const MAC = '52:54:00:12:34:56';
const NETWORK = `net.ifnames=0 ip=${GUEST}::${HOST}:255.255.255.0::eth0:none`;
const CHAP = { user: 'boot-host', password: 'boot-s3cret-123' };
/** Of the shell in the machine. */
const OWNER = 'read -r owner _ < <(cat $(ls -v /run/iscsi-nbd/boot/owner.* | tail -n 1))';
const RECORD = 'cat /run/iscsi-nbd/boot/logins/*.json';

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-boot-'));
  await exec(resolve('scripts/vm/boot-image'), [folder], { maxBuffer: 16 << 20 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function serveRoot(more: Partial<Parameters<typeof startTgt>[0]> = {}): Promise<Tgt> {
  return startTgt({ luns: [{ file: join(folder, 'root.img') }], ...more });
}

/** The session as the daemon has written it down, and the process that has it. */
async function session(machine: Machine) {
  const { sessionId, isid, sessionType } = JSON.parse(await machine.run(RECORD));
  const said = await machine.run(`${OWNER}; echo $owner; tr '\\0' ' ' </proc/$owner/cmdline`);
  const [pid = '', commandLine = ''] = said.split('\n');
  const backend = (await machine.run('cat /sys/block/nbd0/backend')).trim();
  return { pid, commandLine, identity: { sessionId, isid, sessionType, backend } };
}

/** Until the disk has a living owner other than `pid`. */
function untilOwnerIsNot(machine: Machine, pid: string): Promise<string> {
  return machine.run(
    `until ${OWNER} 2>/dev/null && [ -n "$owner" ] && [ "$owner" != "${pid}" ] && ` +
      '[ -e /proc/$owner ]; do sleep 1; done',
  );
}

/** Until the writer has written, and the disk has, `count` lines more than now. */
function untilWritten(machine: Machine, count: number): Promise<string> {
  return machine.run(
    `n=$(wc -l </root/log); until [ $(wc -l </root/log) -ge $((n + ${count})) ]; do sleep 1; done`,
  );
}

describe('a machine whose root file system is on a LUN', () => {
  it('the machine starts from the table of the firmware (iBFT), with CHAP', async () => {
    await using tgt = await serveRoot({ chap: CHAP });
    const table = join(folder, 'ibft');
    writeFileSync(
      table,
      ibftTable({
        initiatorName: 'iqn.2010-04.org.ipxe:firmware',
        mac: MAC,
        address: GUEST,
        prefixLength: 24,
        gateway: HOST,
        target: {
          address: HOST,
          port: tgt.port,
          lun: 1,
          name: tgt.iqn,
          chap: { user: CHAP.user, secret: CHAP.password },
        },
      }),
    );
    await using machine = new Machine({
      images: folder,
      folder,
      commandLine: 'root=/dev/nbd0 ro net.ifnames=0 init=/usr/lib/test-init',
      qemu: ['-acpitable', `file=${table}`],
    });
    const [, said = ''] = await machine.consoleSays(/\[\[init\]\]([\s\S]*)\[\[end\]\]/);
    expect(said).toMatch(/\/dev\/nbd0 \/ ext4 ro/);
    expect(said).toContain(`"initiatorName":"iqn.2010-04.org.ipxe:firmware"`);
    expect(said).toContain(`"targetName":"${tgt.iqn}"`);
    expect(machine.console).not.toContain(CHAP.password);
    expect(await machine.ended).toBe(0);
  });

  it('the machine outlives its target, its process and the initramfs, and ends clean', async () => {
    await using tgt = await serveRoot();
    const url = `iscsi://${HOST}:${tgt.port}/${tgt.iqn}/1`;
    await using machine = new Machine({
      images: folder,
      folder,
      commandLine: `root=/dev/nbd0 ro ${NETWORK} iscsi_nbd=${url},removal-latency=never`,
    });
    await machine.ready();
    expect(await machine.run('grep " / " /proc/mounts')).toMatch(/^\/dev\/nbd0 \/ ext4 rw/m);

    // The service of the real system takes over from the process of the initramfs.
    await machine.run(
      `until ${OWNER} && grep -aq -e --take-over /proc/$owner/cmdline; do sleep 1; done`,
    );
    const second = await session(machine);
    expect(second.commandLine).toMatch(/^@iscsi-nbd .*--take-over/);
    expect(second.identity.sessionType).toBe('boot');
    expect(second.identity.backend).toBe(`iscsi-nbd:${second.identity.sessionId}:1`);

    await machine.run(
      'dd if=/dev/urandom of=/root/data bs=1M count=8 2>/dev/null; sha256sum /root/data >/root/sum; ' +
        '(while echo line >>/root/log && sync /root/log; do sleep 0.5; done) & disown; ' +
        // The disk has these in its cache only until the next sync.
        'copy="dd if=/root/data of=/root/copy bs=64k count=4 oflag=direct conv=notrunc status=none"; ' +
        '(while $copy; do sleep 0.1; done) & disown',
    );
    await untilWritten(machine, 5);
    // The target dies in the middle of the writes, and comes back.
    for (let outages = 0; outages < OUTAGES; outages += 1) {
      await tgt.kill();
      await sleep(2000 + 1000 * outages);
      await tgt.restart();
      await untilWritten(machine, 5);
    }
    let { pid } = second;
    for (let kills = 0; kills < KILLS; kills += 1) {
      await machine.run(`${OWNER}; kill -9 $owner`);
      await untilOwnerIsNot(machine, pid);
      await untilWritten(machine, 5);
      ({ pid } = await session(machine));
    }
    // Both at once.
    await machine.run(`${OWNER}; (sleep 1; kill -9 $owner) & disown`);
    await tgt.kill();
    await sleep(3000);
    await tgt.restart();
    await untilOwnerIsNot(machine, pid);
    await untilWritten(machine, 5);
    const last = await session(machine);
    expect(last.pid).not.toBe(pid);
    expect(last.identity).toEqual(second.identity);
    expect(await machine.run('grep -c " / .*[ ,]ro," /proc/mounts || true')).toBe('0\n');
    // tgt has a write cache, which it may have lost each time.
    expect(machine.console).toMatch(/writesReplayed/);
    expect(machine.console).not.toMatch(/I\/O error|EXT4-fs (error|warning)|Aborting journal/);
    const control = '/run/iscsi-nbd/boot/control.sock';
    const logout = `iscsi-nbd logout ${second.identity.sessionId} --control ${control} 2>&1`;
    expect(await machine.run(`${logout} || echo status $?`)).toMatch(/--force[\s\S]*status 28/);

    // What was written before all of this is read from the target again.
    await machine.run('sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /root/sum');
    await machine.run('cmp -n 262144 /root/data /root/copy');
    machine.start('systemctl reboot');
    expect(await machine.ended).toBe(0);
    await tgt.stop();
    const { stdout } = await exec('e2fsck', ['-fn', join(folder, 'root.img')]);
    expect(stdout).toContain('non-contiguous');
    const { stdout: state } = await exec('dumpe2fs', ['-h', join(folder, 'root.img')]);
    expect(state).toMatch(/^Filesystem state: +clean$/m);
  });
});
