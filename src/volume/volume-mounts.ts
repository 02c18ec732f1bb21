import type { Mount } from '../io/mount-info.js';
import { mount, readyFileSystem, unmount } from './file-system.js';
import { isNodeOf, isOfNbd, mountAt } from './mount-table.js';
import { VolumeError } from './volume-error.js';
import type { VolumeHost } from './volume-host.js';
import type { VolumeSpec } from './volume-spec.js';

/** Mounts that may lie over each other at one path; more is a loop of ours. */
const MOUNTS_MAX = 16;

/** Mounts a disk's file system at a path, once; what was mounted there of a gone disk goes. */
export async function mountDisk(
  host: VolumeHost,
  options: {
    readonly spec: VolumeSpec;
    readonly device: string;
    readonly path: string;
    readonly isReadOnly: boolean;
  },
): Promise<void> {
  const { spec, device, path, isReadOnly } = options;
  if (spec.fsType === null) return;
  const at = mountAt(await host.mounts(), path);
  if (at !== null) {
    if (await isOf(host, at, device)) return;
    if (!isOfNbd(at)) throw somethingElse(at);
    await unmountAll(host, path, { device, isShared: false });
  }
  await requireNotShown(host, device);
  await host.makeFolder(path);
  await readyFileSystem(host, { device, type: spec.fsType, fsck: spec.fsck, isReadOnly });
  // systemd ends a mount of the network before it stops iscsi-nbd.service (systemd.mount(5)).
  const words = ['_netdev', ...spec.mountOptions, ...(isReadOnly ? ['ro'] : [])];
  await mount(host, ['-t', spec.fsType, '-o', words.join(','), device, path]);
}

/** Shows a mounted folder at another path as well, once. */
export async function bindFolder(
  host: VolumeHost,
  options: {
    readonly device: string;
    readonly from: string;
    readonly to: string;
    readonly readOnly: boolean;
  },
): Promise<void> {
  const { device, from, to, readOnly } = options;
  const mounts = await host.mounts();
  const source = mountAt(mounts, from);
  if (source === null || !(await isOf(host, source, device))) {
    const words = `The volume is not mounted at ${from} any more`;
    throw new VolumeError('refused', `${words}: unstage it and stage it again.`);
  }
  const at = mountAt(mounts, to);
  if (at !== null && !(await isOf(host, at, device))) throw somethingElse(at);
  if (at === null) {
    await host.makeFolder(to);
    await mount(host, ['--bind', from, to]);
    await requireShown(host, { device, from, to });
  }
  // The flags of a bind mount are set by a second call (mount(8)).
  const isReadOnly = at?.options.includes('ro') ?? false;
  if (readOnly && !isReadOnly) await mount(host, ['-o', 'remount,bind,ro', to]);
}

/** Shows a block device at another path as well, once. */
export async function bindDevice(
  host: VolumeHost,
  { device, to }: { readonly device: string; readonly to: string },
): Promise<void> {
  const number = await host.deviceNumberOf(device);
  if (number === null) {
    throw new VolumeError('unavailable', `${device} is not there on this host; try again.`);
  }
  const at = mountAt(await host.mounts(), to);
  if (at !== null) {
    if ((await host.deviceNumberOf(to)) === number) return;
    throw somethingElse(at);
  }
  await host.makeFile(to);
  await mount(host, ['--bind', device, to]);
}

/** Whose mounts may be unmounted at a path. */
export type Unmounting = {
  /** The volume's device; null if it has none any more. */
  readonly device: string | null;
  /** Another volume is at the path as well: only what is of the device goes. */
  readonly isShared: boolean;
};

/** Unmounts what of a volume is mounted at a path, and the empty folder or file under it. */
export async function unbind(host: VolumeHost, path: string, whose: Unmounting): Promise<void> {
  await unmountAll(host, path, whose);
  if (whose.isShared) return;
  const kind = await host.kindOf(path);
  if (kind === 'folder') await host.removeFolder(path);
  else if (kind === 'file') await host.removeFile(path);
}

/** Unmounts what of a volume is mounted at a path. Throws VolumeError for any other mount. */
export async function unmountAll(
  host: VolumeHost,
  path: string,
  { device, isShared }: Unmounting,
): Promise<void> {
  for (let round = 0; round < MOUNTS_MAX; round += 1) {
    const at = mountAt(await host.mounts(), path);
    if (at === null) return;
    const isOurs = device !== null && (await isOf(host, at, device));
    if (!isOurs && isShared) return;
    if (!isOurs && !isOfNbd(at)) throw somethingElse(at);
    await unmount(host, path);
  }
  throw new VolumeError('failed', `More than ${MOUNTS_MAX} mounts lie over each other at ${path}.`);
}

/** Throws VolumeError `refused` if containers are shown the device itself. */
async function requireNotShown(host: VolumeHost, device: string): Promise<void> {
  const shown = (await host.mounts()).find((at) => isNodeOf(at, device));
  if (shown === undefined) return;
  const words = `${device} is shown at ${shown.path} as a block device`;
  throw new VolumeError('refused', `${words}: its file system is not mounted as well.`);
}

/** A bind mount shows what is seen at the path, which is another folder if that is mounted over. */
async function requireShown(
  host: VolumeHost,
  { device, from, to }: { readonly device: string; readonly from: string; readonly to: string },
): Promise<void> {
  const at = mountAt(await host.mounts(), to);
  if (at !== null && (await isOf(host, at, device))) return;
  if (at !== null) await unmount(host, to);
  const words = `The volume cannot be seen at ${from}: something else is mounted over it`;
  throw new VolumeError('refused', `${words}. Unmount that first.`);
}

/** A file system of the device, or its node: btrfs has device numbers of its own. */
async function isOf(host: VolumeHost, at: Mount, device: string): Promise<boolean> {
  if (at.source === device || isNodeOf(at, device)) return true;
  const number = await host.deviceNumberOf(device);
  return number !== null && at.device === number;
}

function somethingElse({ path, type, source }: Mount): VolumeError {
  const words = `${path} has another mount (${type} of ${source})`;
  return new VolumeError('refused', `${words}, which is left alone.`);
}
