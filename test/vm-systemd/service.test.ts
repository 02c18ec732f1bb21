import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { Machine } from './machine.js';
import { readmeSteps } from './readme-steps.js';

const MIB = 1 << 20;
/** Writes, and reads back what it wrote, until `/run/load-end` exists; the first error ends it. */
const LOAD = `
  cd /srv/data
  until [ -e /run/load-end ]; do
    head -c 262144 /dev/urandom >part
    sum=$(sha256sum <part)
    dd if=part of=block bs=64k oflag=direct conv=fsync status=none
    [ "$(dd if=block bs=64k iflag=direct status=none | sha256sum)" = "$sum" ]
    echo $((++blocks)) >/run/load-blocks
  done
  sync`;

let tgt: Tgt;
let machine: Machine;
let disk: string;
let identity: string;

beforeAll(async () => {
  machine = new Machine();
  disk = join(machine.folder, 'lun.img');
  tgt = await startTgt({ luns: [{ file: disk, sizeBytes: 64 * MIB }] });
  await machine.boot();
});
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]();
  await tgt?.stop();
});

/**
 * What must not change as long as the session lives: its device, with the number of the session
 * that the kernel keeps for it, and the ISID. Asked of the kernel and the state directory: each
 * start of Node costs the emulated processor seconds.
 */
function identityNow(): Promise<string> {
  return machine.run(`
    grep -H . /sys/block/nbd*/backend
    grep -ohE '"isid": ?"[0-9a-f]*"' /var/lib/iscsi-nbd/logins/*.json`);
}

/** The commands of the README, with the target of this test. */
function mountSteps(): string {
  const steps = readmeSteps('Mount a LUN at boot', tgt);
  expect(steps).toContain('apt-get install ./iscsi-nbd_');
  // scripts/vm/system has installed the same files.
  return steps.replace(/^.*apt-get install .*$/m, 'sudo systemctl enable --now iscsi-nbd');
}

/** Properties of a unit, by name. */
async function unit(name: string): Promise<Map<string, string>> {
  const shown = await machine.run(`systemctl show ${name}`);
  return new Map(
    shown.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}

/** Waits until the service runs in another process than `pid`, and is ready. */
const UNTIL_REPLACED = (pid: string) => `
  until [ "$(systemctl show -P MainPID iscsi-nbd)" != ${pid} ] &&
    systemctl is-active --quiet iscsi-nbd; do sleep 0.5; done`;

/** Loses the process by `commands` under load, and looks at what remains of it. */
async function loseProcess(commands: string): Promise<void> {
  const { MainPID: pid } = Object.fromEntries(await unit('iscsi-nbd'));
  const mountedAt = (await unit('srv-data.mount')).get('ActiveEnterTimestampMonotonic');
  await machine.run(`
    rm -f /run/load-*
    systemd-run --quiet --unit load -p Type=exec bash -e -o pipefail -c '${LOAD}'
    until [ -e /run/load-blocks ]; do sleep 0.2; done
    ${commands.replaceAll('$pid', pid ?? '')}
    ${UNTIL_REPLACED(pid ?? '')}
    blocks=$(cat /run/load-blocks)
    until [ $(cat /run/load-blocks) -gt $((blocks + 1)) ]; do sleep 0.2; done
    touch /run/load-end
    while systemctl is-active --quiet load; do sleep 0.2; done
    systemctl show -P Result load | grep -qx success
    ! dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'
  `);
  expect(await identityNow()).toBe(identity);
  // The mount existed all the time: it was not removed and made again.
  const { ActiveEnterTimestampMonotonic, ActiveState } = Object.fromEntries(
    await unit('srv-data.mount'),
  );
  expect({ ActiveState, ActiveEnterTimestampMonotonic }).toEqual({
    ActiveState: 'active',
    ActiveEnterTimestampMonotonic: mountedAt,
  });
}

describe('iscsi-nbd.service under systemd', () => {
  it('the steps of the README mount a LUN', async () => {
    await machine.run(`
      mkdir -p /etc/systemd/system/iscsi-nbd.service.d
      printf '[Service]\\nWatchdogSec=20\\n' >/etc/systemd/system/iscsi-nbd.service.d/test.conf
      sudo() { "$@"; }
      ${mountSteps()}
      findmnt -n /srv/data`);
    identity = await identityNow();
    expect(identity).toMatch(
      /^\/sys\/block\/nbd\d+\/backend:iscsi-nbd:\S+\n"isid": ?"[0-9a-f]{12}"$/,
    );
  });

  it('the service is restarted after kill -9, with the same session and device, and no error', async () => {
    await loseProcess('kill -KILL $pid');
  });

  it('the service is restarted by the watchdog when it hangs', async () => {
    await loseProcess('kill -STOP $pid');
    const log = await machine.run('journalctl -u iscsi-nbd --no-pager -o cat');
    expect(log).toMatch(/Watchdog timeout/);
  });

  it('the service ends after its mounts, and leaves a clean file system', async () => {
    await machine.run(`
      echo kept >/srv/data/file
      echo 'ISCSI_NBD_DAEMON_FLAGS="--wait-for ${tgt.iqn}/1 --cpu-affinity 0"' >/etc/default/iscsi-nbd
    `);
    await machine.shutDown();
    const { stdout } = await promisify(execFile)('dumpe2fs', ['-h', disk]);
    expect(stdout).toMatch(/^Filesystem state: +clean$/m);
    expect(stdout).not.toMatch(/needs_recovery/);
    await promisify(execFile)('e2fsck', ['-fn', disk]);
  });

  it('the service is ready only when the LUNs of --wait-for are present', async () => {
    await tgt.kill();
    await machine.boot();
    await machine.run(`
      until systemctl show -P StatusText iscsi-nbd | grep -qx 'waiting for ${tgt.iqn}/1'; do
        sleep 0.2
      done`);
    expect((await unit('iscsi-nbd')).get('ActiveState')).toBe('activating');
    await tgt.restart();
    await machine.run('until systemctl is-active --quiet iscsi-nbd; do sleep 0.2; done');
    expect((await unit('iscsi-nbd')).get('StatusText')).toBe('serving');
  });

  it('a reboot brings session, device and mount back', async () => {
    await machine.run('until findmnt -n /srv/data; do sleep 0.2; done');
    expect(await machine.run('cat /srv/data/file')).toBe('kept');
    expect(await identityNow()).toBe(identity);
    const log = await machine.run(
      'journalctl -b -1 --no-pager -o cat -u iscsi-nbd -u srv-data.mount',
    );
    const steps = log.match(/^(Unmounting|Unmounted|Stopping|Stopped)(?= )/gm)?.slice(-4);
    expect(steps).toEqual(['Unmounting', 'Unmounted', 'Stopping', 'Stopped']);
    // It logged out, and left nothing to a next process.
    expect(log).toMatch(/"event":"closed"/);
    expect(log).not.toMatch(/left to the next daemon/);
  });

  it('the service serves on all processors if the unit refuses --cpu-affinity', async () => {
    const log = await machine.run('journalctl -b --no-pager -o cat -u iscsi-nbd');
    expect(log).toMatch(/\(EPERM\)[^"]*SystemCallFilter=sched_setaffinity[^"]*all processors/);
    const run = (filter: string) =>
      machine.run(`
        sed -n "s/^SystemCall.*/-p '&'/p" "$(systemctl show -P FragmentPath iscsi-nbd)" |
          xargs sh -c 'systemd-run --quiet -p Type=oneshot "$@" ${filter} taskset -c 0 true' sh &&
          echo allowed || echo refused`);
    expect(await run('')).toContain('refused');
    expect(await run('-p SystemCallFilter=sched_setaffinity')).toContain('allowed');
  });

  it('a secret file in a home directory is refused with the way to allow it', async () => {
    const refused = await machine.run(`
      echo secret >/root/secret
      chmod 600 /root/secret
      iscsi-nbd login 192.0.2.1 iqn.2001-04.com.example:other --chap-user u \\
        --chap-secret-file /root/secret 2>&1 || true`);
    expect(refused).toMatch(/secret file \/root\/secret .*ProtectHome=read-only/s);
  });

  it('systemd-analyze verifies the unit without a complaint', async () => {
    expect(await machine.run('systemd-analyze verify --man=no iscsi-nbd.service')).toBe('');
    const security = await machine.run('systemd-analyze security --no-pager iscsi-nbd.service');
    const exposure = /Overall exposure level for iscsi-nbd.service: ([\d.]+)/.exec(security)?.[1];
    expect(Number(exposure)).toBeLessThan(3);
  });
});
