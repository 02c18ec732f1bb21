import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type Answer, CsiClient, mountOf } from '../csi/csi-client.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell } from './attached.js';
import { FrontEnd, mountsBelow, RETAINED } from './front-end.js';
import { MIB, sessionsOf } from './targets.js';

afterEach(() => cleanUp());

/** Files that are written with fsync, one after another, and all of them read back at the end. */
class Writer {
  readonly #folder: string;
  readonly #enough: string;
  readonly #running: Promise<string>;

  constructor(folder: string, enough: string) {
    this.#folder = folder;
    this.#enough = enough;
    this.#running = shell(`
      count=0
      until test -e ${enough}; do
        count=$((count + 1))
        head -c 20000 /dev/urandom >${folder}/file
        dd if=${folder}/file of=${folder}/copy bs=20000 conv=fsync status=none
        cmp ${folder}/file ${folder}/copy
        echo "$count" >${folder}/count; sync ${folder}/count
      done
    `);
    this.#running.catch(() => undefined);
  }

  async count(): Promise<number> {
    return Number(await readFile(join(this.#folder, 'count'), 'utf8').catch(() => '0'));
  }

  /** Resolves when more was written; at once with the error if the writer has ended. */
  async goesOn(daemon: DaemonProcess): Promise<void> {
    const before = await this.count();
    const more = daemon.until(async () => (await this.count()) > before + 2);
    await Promise.race([more, this.#running]);
  }

  async end(): Promise<void> {
    await shell(`touch ${this.#enough}`);
    await this.#running;
  }
}

function contextOf(tgt: Tgt): Readonly<Record<string, string>> {
  return { targetPortal: `127.0.0.1:${tgt.port}`, iqn: tgt.iqn, lun: '1' };
}

describe('volumes of tgt', () => {
  it('a pod writes while the target restarts and the plugin and the daemon are killed', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true, retained: RETAINED });
    await daemon.start();
    const { folder } = daemon;
    const socketPath = join(folder, 'csi.sock');
    const flags = ['--endpoint', `unix://${socketPath}`, '--node-id', 'node1'];
    await using plugin = new FrontEnd(daemon, 'csi', ...flags);
    await plugin.start();
    const client = new CsiClient(socketPath);
    const [staging, pod] = [join(folder, 'staging'), join(folder, 'pod')];
    const volume: Answer = {
      volume_id: 'v',
      staging_target_path: staging,
      volume_capability: mountOf(),
      volume_context: contextOf(tgt),
    };
    const published = { ...volume, target_path: pod };
    const stats = { volume_id: 'v', volume_path: pod };
    for (const _each of ['first', 'again']) {
      await client.call('Node.NodeStageVolume', volume);
      await client.call('Node.NodePublishVolume', published);
    }
    const writer = new Writer(pod, join(folder, 'enough'));
    await writer.goesOn(daemon);
    await tgt.restart();
    await writer.goesOn(daemon);
    await plugin.kill();
    await writer.goesOn(daemon);
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${tgt.iqn}/1`);
    await writer.goesOn(daemon);
    await plugin.start();
    await daemon.until(async () => {
      const { volume_condition } = await client.call('Node.NodeGetVolumeStats', stats);
      return (volume_condition as { abnormal: boolean }).abnormal === false;
    });
    expect(await client.codeOf('Node.NodeUnstageVolume', volume)).toBe('FAILED_PRECONDITION');
    await writer.end();
    expect(await writer.count()).toBeGreaterThan(10);
    for (const _each of ['first', 'again']) {
      await client.call('Node.NodeUnpublishVolume', published);
      await client.call('Node.NodeUnstageVolume', volume);
    }
    expect(mountsBelow(folder)).toEqual([]);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
    // The number of the LUN is given to another disk: no volume gets it.
    const other = ['--params', 'scsi_sn=other,scsi_id=other'];
    const lun = ['--mode', 'logicalunit', '--op', 'update', '--tid', '1', '--lun', '1'];
    await tgt.adm('--lld', 'iscsi', ...lun, ...other);
    expect(await client.codeOf('Node.NodeStageVolume', volume)).toBe('FAILED_PRECONDITION');
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
    client.close();
  });
});
