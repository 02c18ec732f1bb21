import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openVolumes } from '../../src/volume/open-volumes.js';
import { VolumeError } from '../../src/volume/volume-error.js';
import type { StageRequest, Volumes } from '../../src/volume/volumes.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, run, shell } from './attached.js';
import { mountsBelow, RETAINED } from './front-end.js';
import { MIB, sessionsOf } from './targets.js';

type FileSystem = StageRequest['spec']['fsType'];

/** The smallest of mkfs.xfs is 300 MiB. */
const DISKS = [
  { fsType: 'ext4', sizeBytes: 32 * MIB },
  { fsType: 'xfs', sizeBytes: 304 * MIB },
  { fsType: 'btrfs', sizeBytes: 128 * MIB },
  { fsType: null, sizeBytes: 8 * MIB },
] as const;

let tgt: Tgt;
let daemon: DaemonProcess;
let volumes: Volumes;

beforeEach(async () => {
  daemon = new DaemonProcess({ devices: true, retained: RETAINED });
  for (const [index, { sizeBytes }] of DISKS.entries()) {
    await run('truncate', '-s', String(sizeBytes), fileOf(index + 1));
  }
  tgt = await startTgt({ luns: DISKS.map((_disk, index) => ({ file: fileOf(index + 1) })) });
  await daemon.start();
  const { control: controlPath, folder } = daemon;
  const stateDirectory = join(folder, 'volumes');
  const runDirectory = join(folder, 'run');
  const warn = (message: string) => expect.fail(message);
  const place = { kind: 'csi', stateDirectory, runDirectory, controlPath, warn } as const;
  ({ volumes } = await openVolumes(place));
});
afterEach(async () => {
  await daemon.stop('SIGKILL');
  await cleanUp();
  await daemon[Symbol.asyncDispose]();
  await tgt.stop();
});

const fileOf = (lun: number) => join(daemon.folder, `disk${lun}`);
const stagingOf = (lun: number) => join(daemon.folder, `staging${lun}`);
const podOf = (lun: number) => join(daemon.folder, `pod${lun}`);

function request(
  lun: number,
  fsType: FileSystem,
  fsck: StageRequest['spec']['fsck'] = 'auto',
): StageRequest {
  const disk = { targetName: tgt.iqn, lun, portals: [`127.0.0.1:${tgt.port}`], diskId: null };
  const use = { fsType, fsck, mountOptions: [], readOnly: false, options: {} };
  const stagingPath = fsType === null ? null : stagingOf(lun);
  return { volumeId: `v${lun}`, spec: { ...disk, ...use }, secrets: {}, stagingPath };
}

const unstage = ({ volumeId, stagingPath }: StageRequest) => volumes.unstage(volumeId, stagingPath);

/** As the kernel says it of the block device at a path. */
const sizeAt = async (path: string) => Number(await run('blockdev', '--getsize64', path));

/** False as long as the session is not back. */
async function isExpanded(volumeId: string, requiredBytes: number): Promise<boolean> {
  try {
    expect(await volumes.expand(volumeId, requiredBytes)).toBe(requiredBytes);
    return true;
  } catch (error) {
    if (error instanceof VolumeError && error.fault === 'unavailable') return false;
    throw error;
  }
}

describe('file systems of volumes on the kernel', () => {
  it.each(
    DISKS.map(({ fsType, sizeBytes }, index) => [fsType ?? 'no', index + 1, sizeBytes] as const),
  )('a disk with %s file system grows while it is in use', async (name, lun, sizeBytes) => {
    const fsType = name === 'no' ? null : name;
    const volume = request(lun, fsType);
    const { volumeId } = volume;
    const place = { volumeId, targetPath: podOf(lun), readOnly: false, isExclusive: true };
    await volumes.stage(volume);
    await volumes.publish(place);
    const file = fsType === null ? podOf(lun) : join(podOf(lun), 'file');
    await shell(`head -c 3000000 /dev/urandom | dd of=${file} bs=64k conv=fsync status=none`);
    const before = await volumes.report(volumeId, podOf(lun));
    await tgt.kill();
    await run('truncate', '-s', String(sizeBytes * 2), fileOf(lun));
    await tgt.restart();
    await daemon.until(() => isExpanded(volumeId, sizeBytes * 2));
    expect(await isExpanded(volumeId, sizeBytes * 2)).toBe(true);
    const after = await volumes.report(volumeId, podOf(lun));
    expect(after.sizeBytes).toBe(sizeBytes * 2);
    if (fsType === null) expect(await sizeAt(podOf(lun))).toBe(sizeBytes * 2);
    else {
      const [first, second] = [before.fileSystem?.totalBytes, after.fileSystem?.totalBytes];
      expect(second).toBeGreaterThan((first ?? 0) + 0.8 * sizeBytes);
    }
    const sum = await shell(`head -c 3000000 ${file} | sha256sum`);
    await volumes.unpublish(volumeId, podOf(lun));
    await unstage(volume);
    await volumes.stage(volume);
    await volumes.publish(place);
    expect(await shell(`head -c 3000000 ${file} | sha256sum`)).toBe(sum);
    await volumes.unpublish(volumeId, podOf(lun));
    await unstage(volume);
    expect(mountsBelow(daemon.folder)).toEqual([]);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
    // The same disk as another type is another's data.
    const other = request(lun, fsType === 'ext4' ? 'xfs' : 'ext4');
    const words = fsType === null ? /data without a signature/ : /has the file system/;
    await expect(volumes.stage(other)).rejects.toThrow(words);
    expect(await sessionsOf(tgt)).toBe(0);
  });

  it('what is safe to repair is repaired before the mount, and what is not keeps it from being mounted', async () => {
    const volume = request(1, 'ext4');
    await volumes.stage(volume);
    await unstage(volume);
    const file = fileOf(1);
    const damage = (...commands: readonly string[]) =>
      shell(commands.map((command) => `debugfs -w -R '${command}' ${file}`).join('\n'));
    await damage('set_super_value state 0', 'set_super_value free_blocks_count 1');
    await volumes.stage(volume);
    await unstage(volume);
    await run('e2fsck', '-fn', file);
    await damage('set_super_value state 0', 'set_inode_field <2> mode 0');
    await expect(volumes.stage(volume)).rejects.toThrow(/e2fsck .*RUN fsck MANUALLY/);
    await expect(volumes.stage(request(1, 'ext4', 'never'))).rejects.toThrow(/^mount -t ext4/);
    expect(mountsBelow(daemon.folder)).toEqual([]);
    expect(await configuredDevices()).toEqual([]);
    expect(await sessionsOf(tgt)).toBe(0);
  });
});
