import { readdirSync, readFileSync } from 'node:fs';
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, UsageError } from '../base/errors.js';
import { parseMountInfo, unescapeField } from './mount-info.js';
import type { NbdAddon } from './nbd-netlink.js';

/** Where the kernel shows itself; other directories in tests. */
export interface SystemPaths {
  readonly sys: string;
  readonly proc: string;
  readonly dev: string;
}

export const SYSTEM_PATHS: SystemPaths = { sys: '/sys', proc: '/proc', dev: '/dev' };

interface ConfiguredDevice {
  readonly index: number;
  readonly path: string;
  readonly identifier: string;
}

/** Who keeps a device busy. `device` is the disk or one of its partitions. */
interface DeviceHolder {
  readonly kind: 'mount' | 'swap' | 'holder';
  readonly device: string;
  /** Mount point, or the block device on top; empty for swap. */
  readonly where: string;
}

export function devicePath(index: number, paths: SystemPaths = SYSTEM_PATHS): string {
  return `${paths.dev}/nbd${index}`;
}

/** A file's text; null when there is none. */
export async function readTextOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ENODEV', 'EACCES', 'EINVAL'].includes(errnoOf(error))) return null;
    throw error;
  }
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(errnoOf(error))) return [];
    throw error;
  }
}

/** Every NBD device that has a backend identifier, by index: the ones a daemon left behind too. */
export async function listConfigured(
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<readonly ConfiguredDevice[]> {
  const devices: ConfiguredDevice[] = [];
  for (const name of await namesIn(`${paths.sys}/block`)) {
    const digits = /^nbd(\d+)$/.exec(name)?.[1];
    if (digits === undefined) continue;
    const backend = await readTextOrNull(`${paths.sys}/block/${name}/backend`);
    if (backend === null) continue;
    const index = Number(digits);
    const identifier = backend.replace(/\n$/, '');
    devices.push({ index, path: devicePath(index, paths), identifier });
  }
  return devices.sort((left, right) => left.index - right.index);
}

/** The device that was connected with `identifier`, or null. */
export async function findByIdentifier(
  identifier: string,
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<ConfiguredDevice | null> {
  const devices = await listConfigured(paths);
  return devices.find((device) => device.identifier === identifier) ?? null;
}

/**
 * True from CONNECT until after DISCONNECT the last user has closed the device. Only then can the
 * index be connected again.
 */
export async function isConfigured(
  index: number,
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<boolean> {
  return (await readTextOrNull(`${paths.sys}/block/nbd${index}/pid`)) !== null;
}

/** The unit of `size` and `start` in /sys/block, whatever the disk's blocks are. */
const SECTOR_BYTES = 512;

/** Bytes the kernel says the device has. */
export async function sizeOf(index: number, paths: SystemPaths = SYSTEM_PATHS): Promise<number> {
  const text = await readTextOrNull(`${paths.sys}/block/nbd${index}/size`);
  return Number(text ?? 0) * SECTOR_BYTES;
}

type PartitionRange = { readonly startBytes: number; readonly endBytes: number };

/** Where the partitions of a device lie; none where the kernel has found none. Does not wait. */
export function partitionsOf(
  index: number,
  paths: SystemPaths = SYSTEM_PATHS,
): readonly PartitionRange[] {
  const disk = `nbd${index}`;
  const root = `${paths.sys}/block/${disk}`;
  try {
    const names = readdirSync(root).filter((name) => name.startsWith(`${disk}p`));
    return names.map((name) => {
      const sectors = (file: string) => Number(readFileSync(`${root}/${name}/${file}`, 'utf8'));
      const startBytes = sectors('start') * SECTOR_BYTES;
      return { startBytes, endBytes: startBytes + sectors('size') * SECTOR_BYTES };
    });
  } catch (error) {
    // A partition that goes at this moment: the disk as a whole is left.
    if (error instanceof Error && 'syscall' in error) return [];
    throw error;
  }
}

/** The disk and its partitions: name and device number ("43:0"). */
async function blockDevices(
  index: number,
  paths: SystemPaths,
): Promise<readonly { readonly name: string; readonly directory: string; readonly dev: string }[]> {
  const disk = `nbd${index}`;
  const root = `${paths.sys}/block/${disk}`;
  const partitions = (await namesIn(root)).filter((name) => name.startsWith(`${disk}p`));
  const found = [];
  for (const name of [disk, ...partitions]) {
    const directory = name === disk ? root : join(root, name);
    const dev = await readTextOrNull(`${directory}/dev`);
    if (dev !== null) found.push({ name, directory, dev: dev.trim() });
  }
  return found;
}

async function resolved(path: string): Promise<string> {
  return path.startsWith('/') ? realpath(path).catch(() => path) : path;
}

/** Mounts, swap areas and stacked devices on a device, as this mount namespace sees them. */
export async function findHolders(
  index: number,
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<readonly DeviceHolder[]> {
  const devices = await blockDevices(index, paths);
  const byPath = new Map(devices.map((device) => [`${paths.dev}/${device.name}`, device.name]));
  const byNumber = new Map(devices.map((device) => [device.dev, device.name]));
  const holders: DeviceHolder[] = [];
  const mounts = (await readTextOrNull(`${paths.proc}/self/mountinfo`)) ?? '';
  for (const { device, source, path } of parseMountInfo(mounts)) {
    // btrfs has a number of its own, so the source counts as well.
    const name = byNumber.get(device) ?? byPath.get(await resolved(source));
    if (name !== undefined) holders.push({ kind: 'mount', device: name, where: path });
  }
  const swaps = (await readTextOrNull(`${paths.proc}/swaps`)) ?? '';
  for (const line of swaps.split('\n').slice(1)) {
    const name = byPath.get(await resolved(unescapeField(line.split(/\s/)[0] ?? '')));
    if (name !== undefined) holders.push({ kind: 'swap', device: name, where: '' });
  }
  for (const device of devices) {
    for (const above of await namesIn(`${device.directory}/holders`)) {
      holders.push({ kind: 'holder', device: device.name, where: above });
    }
  }
  return holders;
}

/** "nbd0p1 is mounted on /mnt, nbd0p2 is used as swap"; even if no holder can be named. */
export function describeHolders(holders: readonly DeviceHolder[]): string {
  if (holders.length === 0) {
    return 'its user is not visible here (another mount namespace, or a program holds it open)';
  }
  return holders
    .map(({ kind, device, where }) => {
      if (kind === 'mount') return `${device} is mounted on ${where}`;
      return kind === 'swap' ? `${device} is used as swap` : `${device} is held by ${where}`;
    })
    .join(', ');
}

interface QueueSettings {
  readonly ioTimeoutMs: number;
  readonly maxSectorsKb: number;
  readonly rotational: boolean;
}

/**
 * Sets a device's queue, and returns one sentence for each setting the kernel did not take. All of
 * it is set every time, because the kernel keeps a device's old settings over a disconnect.
 *
 * `io_timeout` comes first: a request's timer is fixed when it starts, and it is what makes the
 * kernel send requests again soon after our process has been replaced. Equal values are not
 * written, since writing the scheduler waits for requests in flight.
 */
export async function applyQueueSettings(
  addon: NbdAddon,
  index: number,
  settings: QueueSettings,
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<readonly string[]> {
  const queue = `${paths.sys}/block/nbd${index}/queue`;
  const hardLimit = Number(await readTextOrNull(`${queue}/max_hw_sectors_kb`));
  const maxSectorsKb = hardLimit > 0 ? Math.min(hardLimit, settings.maxSectorsKb) : 0;
  const wanted: readonly (readonly [attribute: string, value: string])[] = [
    ['io_timeout', String(settings.ioTimeoutMs)],
    ['rotational', settings.rotational ? '1' : '0'],
    ['add_random', '0'],
    ['max_sectors_kb', String(maxSectorsKb || settings.maxSectorsKb)],
    // One largest request ahead of a sequential reader.
    ['read_ahead_kb', String(maxSectorsKb || settings.maxSectorsKb)],
    // The target orders requests itself; a scheduler here only costs time.
    ['scheduler', 'none'],
  ];
  const refused: string[] = [];
  for (const [attribute, value] of wanted) {
    const path = `${queue}/${attribute}`;
    const current = (await readTextOrNull(path))?.trim();
    if (current === undefined || current === value || current.includes(`[${value}]`)) continue;
    try {
      await addon.writeAttribute(path, value);
    } catch (error) {
      if (errnoOf(error) === '') throw error;
      refused.push(`${path} stays at ${current} instead of ${value} (${errnoOf(error)})`);
    }
  }
  return refused;
}

/**
 * Makes sure that `/dev/nbdX` exists as this device. devtmpfs has made it by the time CONNECT
 * returns; in a container without devtmpfs it is made here. Never opens it.
 */
export async function ensureNode(
  addon: NbdAddon,
  index: number,
  paths: SystemPaths = SYSTEM_PATHS,
): Promise<void> {
  const path = devicePath(index, paths);
  const numbers = await readTextOrNull(`${paths.sys}/block/nbd${index}/dev`);
  const [major = Number.NaN, minor = Number.NaN] = (numbers ?? '').trim().split(':').map(Number);
  if (!Number.isInteger(major) || !Number.isInteger(minor)) return;
  await addon.makeBlockNode(path, major, minor);
  const facts = await stat(path);
  if (facts.isBlockDevice() && facts.rdev === deviceNumber(major, minor)) return;
  throw new UsageError(
    `${path} is not block device ${major}:${minor} but another file. Remove it and try again.`,
    { exitCode: 1 },
  );
}

/** `st_rdev` as Linux packs it, for minors below 2^20. */
function deviceNumber(major: number, minor: number): number {
  return (minor & 0xff) + major * 256 + (minor >> 8) * 2 ** 20;
}
