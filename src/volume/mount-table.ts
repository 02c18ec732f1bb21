import type { Mount } from '../io/mount-info.js';

/** The mount that is seen at a path: the last one there. */
export function mountAt(mounts: readonly Mount[], path: string): Mount | null {
  return mounts.filter((mount) => mount.path === path).at(-1) ?? null;
}

/** The name of a device's node; the kernel marks one that is removed while it is mounted. */
const NODE = /^(\/nbd\d+)(?:\/\/deleted)?$/;

/** A device of the kernel's NBD driver, or its node in /dev. */
export function isOfNbd(mount: Mount): boolean {
  return /^\/dev\/nbd\d+$/.test(mount.source) || NODE.test(mount.root);
}

/** The node of a device in /dev, shown at another path. */
export function isNodeOf(mount: Mount, device: string): boolean {
  const name = NODE.exec(mount.root)?.[1];
  return name !== undefined && `/dev${name}` === device;
}
