import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell } from './attached.js';
import { FrontEnd, mountsBelow, RETAINED } from './front-end.js';
import { Podman } from './podman.js';
import { MIB, sessionsOf } from './targets.js';

afterEach(() => cleanUp());

/** Writes files with fsync under a hundred names, and prints a line when one is on the disk. */
const writer = (folder: string) => `
  mkdir -p /data/${folder}
  cd /data/${folder}
  count=0
  until test -e /data/enough; do
    count=$((count + 1))
    file=file$((count % 100))
    head -c 20000 /dev/urandom >/tmp/part
    sum=$(sha256sum </tmp/part)
    dd if=/tmp/part of=$file bs=20000 conv=fsync 2>/tmp/said
    echo "\${sum%% *}  $file" >$file.sum
    sync $file.sum
    echo $count
    sleep 0.1
  done`;

/** Each file is what its sum says, as it is on the disk now. */
const CHECK = `
  for folder in one two; do
    cd /data/$folder
    cat *.sum | sha256sum -c >/tmp/checked
    test $(wc -l </tmp/checked) -gt 10
  done
  echo all is there`;

const FAULTS = 'I/O error|EXT4-fs (error|warning)|Aborting journal';
/** udev reads a disk that was closed, perhaps while it is removed; the containers check theirs. */
const OF_UDEV = '[(]READ[)]|async page read';

describe('volumes of Podman on tgt', () => {
  it('two containers write to one volume while the target restarts and plugin and daemon are killed', async ({
    annotate,
  }) => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true, retained: RETAINED });
    await daemon.start();
    const socketPath = join(daemon.folder, 'docker.sock');
    await using plugin = new FrontEnd(daemon, 'docker-plugin', '--socket', socketPath);
    await plugin.start();
    const podman = await Podman.make(join(daemon.folder, 'podman'), socketPath);
    const url = `url=iscsi://127.0.0.1:${tgt.port}/${tgt.iqn}/1`;
    const nothingIsLeft = async () => {
      expect(mountsBelow(join(daemon.folder, 'volumes'))).toEqual([]);
      expect(await configuredDevices()).toEqual([]);
      expect(await daemon.run('sessions')).toMatchObject({ code: 21 });
      expect(await sessionsOf(tgt)).toBe(0);
    };
    await podman.run('volume', 'create', '--driver', 'iscsi-nbd', '--opt', url, 'data');
    await nothingIsLeft();
    for (const name of ['one', 'two']) await podman.start(name, writer(name));
    const written = async (name: string) => Number(await podman.lastLineOf(name));
    const bothGoOn = async () => {
      const before = await Promise.all([written('one'), written('two')]);
      await daemon.until(async () => {
        const now = await Promise.all([written('one'), written('two')]);
        return now.every((count, index) => count > (before[index] ?? 0) + 2);
      });
    };
    await bothGoOn();
    expect(await configuredDevices()).toHaveLength(1);
    await tgt.restart();
    await bothGoOn();
    await plugin.kill();
    await bothGoOn();
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${tgt.iqn}/1`);
    await bothGoOn();
    await plugin.start();
    await podman.once('touch /data/enough');
    expect(await Promise.all([podman.wait('one'), podman.wait('two')])).toEqual([0, 0]);
    await annotate(`${await written('one')} and ${await written('two')} files with fsync`);
    await nothingIsLeft();
    expect(await podman.once(CHECK)).toBe('all is there');
    // A container that ends while the plugin is away cannot tell it.
    await podman.start('three', 'sleep 1000');
    await plugin.kill();
    const removed = podman.run('rm', '--force', '--time', '0', 'one', 'two', 'three');
    await expect(removed).rejects.toThrow(/required plugin missing/);
    await plugin.start();
    expect(await sessionsOf(tgt)).toBe(1);
    await podman.run('volume', 'rm', 'data');
    expect(await podman.run('volume', 'ls', '--quiet')).toBe('');
    await nothingIsLeft();
    expect(await shell(`dmesg | grep -vE '${OF_UDEV}' | grep -E '${FAULTS}' || true`)).toBe('');
  });
});
