import type { Mount } from '../io/mount-info.js';

/** The mount that is seen at a path: the last one there. */
export function mountAt(mounts: readonly Mount[], path: string): Mount | null {
  return mounts.filter((mount) => mount.path === path).at(-1) ?? null;
}

/** A device of the kernel's NBD driver, or its node in /dev. */
export function isOfNbd(mount: Mount): boolean {
  return /^\/dev\/nbd\d+$/.test(mount.source) || /^\/nbd\d+$/.test(mount.root);
}
