import { createHash } from 'node:crypto';
import { mkdir, readlink, rename, rm, rmdir, symlink, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../base/errors.js';
import type { NbdAddon } from './nbd-netlink.js';
import { devicePath } from './nbd-sysfs.js';

/** Where stable names are kept; other directories in tests. */
export interface LinkPaths {
  /** Links of our own, there with and without udev. */
  readonly links: string;
  /** What the udev rule imports: a file a device, named by its backend, in environment format. */
  readonly properties: string;
  readonly sys: string;
}

const LINK_PATHS: LinkPaths = {
  links: '/dev/iscsi-nbd',
  properties: '/run/iscsi-nbd/devices',
  sys: '/sys',
};

type PortalName = { readonly host: string; readonly port: number };

/** A LUN of a target at a portal. */
export type DevicePlace = PortalName & { readonly targetName: string; readonly lun: number };

/** Paths that have a name: the udev rule has a line for each. */
const PATH_NAMES_MAX = 8;
/** Enough for the targets of a host, short enough for a name. */
const HASH_DIGITS = 8;

/** What a device's stable names are made of. */
export interface DeviceName {
  readonly index: number;
  /** Backend identifier, by which the kernel knows the device. */
  readonly identifier: string;
  readonly portal: PortalName;
  /** Where its paths go, this one perhaps among them. */
  readonly otherPlaces?: readonly DevicePlace[];
  readonly targetName: string;
  readonly lun: number;
  /** Names of the logical unit as in VPD page 83h, e.g. `naa.6001405…`, the most unique first. */
  readonly identifiers: readonly string[];
  readonly vendor: string;
  readonly product: string;
  readonly serial: string;
}

/**
 * Gives a device its stable names: `/dev/iscsi-nbd/<target>/lun<n>` at once, and those under
 * /dev/disk through udev where it runs. A name of an older device is taken over.
 */
export async function publishNames(
  addon: NbdAddon,
  name: DeviceName,
  paths: LinkPaths = LINK_PATHS,
): Promise<void> {
  const properties = join(paths.properties, name.identifier);
  await mkdir(paths.properties, { recursive: true, mode: 0o755 });
  await writeFile(`${properties}.new`, propertiesText(name), { mode: 0o644 });
  await rename(`${properties}.new`, properties);
  const link = linkPath(name, paths);
  await mkdir(dirname(link), { recursive: true, mode: 0o755 });
  const draft = `${link}.new`;
  await rm(draft, { force: true });
  await symlink(devicePath(name.index), draft);
  await rename(draft, link);
  await announce(addon, name.index, paths);
}

/** What a killed process has said of a device names no new one, whose disk may be another. */
export async function forgetNames(
  identifier: string,
  paths: LinkPaths = LINK_PATHS,
): Promise<void> {
  await rm(join(paths.properties, identifier), { force: true });
}

/**
 * Takes a device's names away, after the device itself. A link that a later session to the same
 * target has made its own stays.
 */
export async function withdrawNames(
  addon: NbdAddon,
  name: DeviceName,
  paths: LinkPaths = LINK_PATHS,
): Promise<void> {
  await forgetNames(name.identifier, paths);
  const link = linkPath(name, paths);
  const isOurs = (await targetOf(link)) === devicePath(name.index);
  for (const [remove, path] of [
    ...(isOurs ? ([[unlink, link]] as const) : []),
    [rmdir, dirname(link)],
    [rmdir, paths.links],
  ] as const) {
    try {
      await remove(path);
    } catch (error) {
      // Other devices have names there, or another process was quicker.
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(errnoOf(error))) throw error;
    }
  }
  await announce(addon, name.index, paths);
}

export function linkPath(name: DeviceName, paths: LinkPaths = LINK_PATHS): string {
  return join(paths.links, distinct(name.targetName), `lun${name.lun}`);
}

async function targetOf(link: string): Promise<string | null> {
  try {
    return await readlink(link);
  } catch (error) {
    if (!['ENOENT', 'EINVAL'].includes(errnoOf(error))) throw error;
    return null;
  }
}

/** The properties of the udev rule, in the form systemd's own rules have for such disks. */
export function propertiesText(name: DeviceName): string {
  const { portal, targetName, lun, otherPlaces = [], identifiers } = name;
  const all = [{ ...portal, targetName, lun }, ...otherPlaces];
  const places = new Set(all.map(pathName));
  const [first, ...others] = [...places].slice(0, PATH_NAMES_MAX);
  const lines = [
    `ID_PATH=${first}`,
    ...others.map((path, at) => `ISCSI_NBD_PATH_${at + 2}=${path}`),
    'ID_BUS=iscsi',
    `ID_VENDOR=${safe(name.vendor)}`,
    `ID_MODEL=${safe(name.product)}`,
  ];
  if (name.serial !== '') lines.push(`ID_SCSI_SERIAL=${safe(name.serial)}`);
  const worldWide = identifiers.find((identifier) => /^(naa|eui)\.[0-9a-f]+$/.test(identifier));
  if (worldWide !== undefined) lines.push(`ID_WWN=0x${worldWide.slice(4)}`);
  const best = identifiers[0];
  if (best !== undefined) lines.push(`ISCSI_NBD_ID=${safe(best)}`);
  return `${lines.join('\n')}\n`;
}

function pathName({ targetName, lun, host, port }: DevicePlace): string {
  return `ip-${safe(host)}:${port}-iscsi-${distinct(targetName)}-lun-${lun}`;
}

/** A text as a part of a name, with a hash if something is lost: two texts never get one name. */
function distinct(text: string): string {
  const name = safe(text);
  if (name === text) return name;
  const hash = createHash('sha256').update(text).digest('hex');
  return `${name}_${hash.slice(0, HASH_DIGITS)}`;
}

/** The characters udev lets into a link's name; a target's texts are not to be trusted. */
function safe(text: string): string {
  const cleaned = text.replace(/[^A-Za-z0-9#+.:=@_-]/g, '_').slice(0, 200);
  return cleaned === '' || /^\.+$/.test(cleaned) ? '_' : cleaned;
}

/** Makes udev look at the device again. */
async function announce(addon: NbdAddon, index: number, paths: LinkPaths): Promise<void> {
  try {
    await addon.writeAttribute(join(paths.sys, 'block', `nbd${index}`, 'uevent'), 'change');
  } catch (error) {
    if (errnoOf(error) === '') throw error;
  }
}
