import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { Machine, machineOfEnvironment } from './machine.js';

const MIB = 1 << 20;
const ENGINE = process.env['ENGINE'] === 'docker' ? 'docker' : 'podman';
const PROGRAMS = { podman: ['podman', 'crun', 'dbus'], docker: ['docker.io', 'dbus'] };

/** Without networks and layers of images: neither has to do with volumes. */
const SETUP = {
  podman: `
    mkdir -p /etc/containers
    cat >/etc/containers/containers.conf <<'END'
[engine]
events_logger = "none"
volume_plugin_timeout = 60
[engine.volume_plugins]
iscsi-nbd = "/run/docker/plugins/iscsi-nbd.sock"
END
    printf '[storage]\\ndriver = "vfs"\\nrunroot = "/run/storage"\\ngraphroot = "/var/lib/storage"\\n' \\
      >/etc/containers/storage.conf
    systemctl restart podman-restart`,
  docker: `
    echo '{"storage-driver": "vfs", "iptables": false, "ip6tables": false, "bridge": "none"}' \\
      >/etc/docker/daemon.json
    systemctl restart docker`,
};

/** Debian's busybox with its libraries is the image. */
const IMAGE = `
  mkdir -p /var/image/bin
  cp --parents /bin/busybox $(ldd /bin/busybox | grep -o '/[^ ]*') /var/image
  for tool in cat dd grep head mkdir mv sh sha256sum sleep sync test wc; do
    ln -s busybox /var/image/bin/$tool
  done
  tar -C /var/image -c . | ${ENGINE} import - busybox`;

/** Files that are written with fsync under a hundred names, each with its sum, and counted. */
const WRITER = `
  mkdir -p /data/$1
  cd /data/$1
  count=$(cat count 2>/dev/null || echo 0)
  while :; do
    count=$((count + 1))
    file=file$((count % 100))
    head -c 20000 /dev/urandom >/part
    sum=$(sha256sum </part)
    dd if=/part of=$file bs=20000 conv=fsync 2>/said
    echo "\${sum%% *}  $file" >$file.sum
    sync $file.sum
    echo $count >count.new
    sync count.new
    mv count.new count
    sleep 0.1
  done`;
/** All files but the one that the end of a container may have cut off are what their sums say. */
const CHECK = `
  cd /data/$1
  test $(cat count) -gt 10
  cat *.sum | sha256sum -c | grep -v ": OK$" | wc -l`;

const container = (script: string, name: string) =>
  `--network none -v data:/data busybox sh -euc '${script}' sh ${name}`;
const start = (name: string) =>
  `${ENGINE} run -d --restart always --name ${name} ${container(WRITER, name)}`;

/** Waits until both containers have written more files; fails if they do not in a minute. */
const BOTH_GO_ON = `
  count() { cat /var/lib/iscsi-nbd/volumes/docker/mounts/*/$1/count 2>/dev/null || echo 0; }
  before=($(count one) $(count two)) tries=0
  until (($(count one) > before[0] + 2 && $(count two) > before[1] + 2)); do
    ((++tries < 300))
    sleep 0.2
  done`;

let tgt: Tgt;
let machine: Machine;
let disk: string;

beforeAll(async () => {
  machine = new Machine({ ...machineOfEnvironment(), programs: PROGRAMS[ENGINE] });
  disk = join(machine.folder, 'lun.img');
  tgt = await startTgt({ luns: [{ file: disk, sizeBytes: 64 * MIB }] });
  await machine.boot();
});
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]();
  await tgt?.stop();
});

describe(`volumes of ${ENGINE} under systemd`, () => {
  it('the first container of a volume starts the plugin, logs in and gets a new file system', async () => {
    await machine.run(`
      systemctl enable --now iscsi-nbd iscsi-nbd-docker.socket
      ${SETUP[ENGINE]}
      ${IMAGE}
      ${ENGINE} volume create --driver iscsi-nbd --opt url=iscsi://10.0.2.2:${tgt.port}/${tgt.iqn}/1 data
      ! iscsi-nbd sessions
      ${start('one')}
      ${start('two')}
      ${BOTH_GO_ON}
      iscsi-nbd sessions`);
  });

  it('two containers write while the target restarts and the plugin and the daemon are killed', async () => {
    await tgt.restart();
    await machine.run(`
      ${BOTH_GO_ON}
      systemctl kill --signal KILL iscsi-nbd-docker
      ${BOTH_GO_ON}
      systemctl kill --signal KILL --kill-who main iscsi-nbd
      ${BOTH_GO_ON}
      ! dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'`);
  });

  it('the containers end before the disk does when the machine ends', async () => {
    await machine.shutDown();
    const { stdout } = await promisify(execFile)('dumpe2fs', ['-h', disk]);
    expect(stdout).toMatch(/^Filesystem state: +clean$/m);
    expect(stdout).not.toMatch(/needs_recovery/);
    await promisify(execFile)('e2fsck', ['-fn', disk]);
  });

  it('the containers have their volume again after a reboot, with what was written', async () => {
    await machine.boot();
    await machine.run(`
      ${BOTH_GO_ON}
      ${ENGINE} rm -f one two
      ! iscsi-nbd sessions
      for name in one two; do
        [ $(${ENGINE} run --rm ${container(CHECK, '$name')}) -le 1 ]
      done
      ! iscsi-nbd sessions
      ${ENGINE} volume rm data
      # udev reads a disk that has been closed, perhaps while it is removed; what containers read is
      # checked above.
      ! dmesg | grep -vE '[(]READ[)]|async page read' |
        grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'`);
    const log = await machine.run('journalctl -b -1 --no-pager -o cat -u iscsi-nbd');
    expect(log).toMatch(/"event":"closed"/);
  });
});
