import { contentOf } from './blank-disk.js';
import { VolumeError } from './volume-error.js';
import type { VolumeHost } from './volume-host.js';

/** Making and checking take as long as the disk is large. */
const LONG_MS_MAX = 1_800_000;
const MOUNT_MS_MAX = 120_000;

type Tool = { readonly program: string; readonly args: readonly string[] };

type FileSystemRow = {
  /**
   * No -f or -F: XFS and btrfs refuse to overwrite a signature. mke2fs asks a terminal only, so
   * that an ext is not overwritten rests on what `contentOf` has found just before.
   */
  readonly make: Tool;
  /** Repairs what is safe to repair; null: the mount replays its journal. */
  readonly check: Tool | null;
  /** Statuses of `check` that let the disk be mounted. */
  readonly checkOk: readonly number[];
  readonly grow: (device: string, mountPath: string) => Tool;
};

/** e2fsck(8): 1 errors corrected, 2 the same, and a mounted root should be booted again. */
const EXT_CHECK = { check: { program: 'e2fsck', args: ['-p'] }, checkOk: [0, 1, 2] };
const growExt = (device: string) => ({ program: 'resize2fs', args: [device] });

function ext(type: string): FileSystemRow {
  // No part kept for root: the users of a volume are seldom root.
  const make = { program: `mkfs.${type}`, args: ['-q', '-m', '0'] };
  return { make, ...EXT_CHECK, grow: growExt };
}

const FILE_SYSTEMS = {
  ext2: ext('ext2'),
  ext3: ext('ext3'),
  ext4: ext('ext4'),
  xfs: {
    make: { program: 'mkfs.xfs', args: ['-q'] },
    check: null,
    checkOk: [],
    grow: (_device: string, mountPath: string) => ({ program: 'xfs_growfs', args: [mountPath] }),
  },
  btrfs: {
    make: { program: 'mkfs.btrfs', args: ['-q'] },
    check: null,
    checkOk: [],
    grow: (_device: string, mountPath: string) => ({
      program: 'btrfs',
      args: ['filesystem', 'resize', 'max', mountPath],
    }),
  },
} as const satisfies Record<string, FileSystemRow>;

export type FileSystemType = keyof typeof FILE_SYSTEMS;
export const FILE_SYSTEM_TYPES = Object.keys(FILE_SYSTEMS) as readonly FileSystemType[];

/** `auto`: repair before each mount what is safe to repair; `never`: mount as it is. */
export const FSCK_POLICIES = ['auto', 'never'] as const;
export type FsckPolicy = (typeof FSCK_POLICIES)[number];

/**
 * Makes sure that the disk has a file system of `type` that can be mounted: makes one on a blank
 * disk, and checks an existing one. Throws VolumeError `refused` if the disk has anything else.
 */
export async function readyFileSystem(
  host: VolumeHost,
  options: {
    readonly device: string;
    readonly type: FileSystemType;
    readonly fsck: FsckPolicy;
    /** Nothing is written to the disk: neither a file system nor a repair. */
    readonly isReadOnly: boolean;
  },
): Promise<void> {
  const { device, type, fsck, isReadOnly } = options;
  if (!(await host.isFree(device))) {
    throw new VolumeError('refused', `${device} is in use: by a mount, a mapper or a program.`);
  }
  const content = await contentOf(host, device);
  const row: FileSystemRow = FILE_SYSTEMS[type];
  switch (content.kind) {
    case 'blank':
      if (isReadOnly) {
        const words = `${device} is blank, and read-only here, so it gets no file system.`;
        throw new VolumeError('refused', `${words} Make one that can be written.`);
      }
      await runTool(host, row.make, device);
      return;
    case 'other':
      throw new VolumeError(
        'refused',
        `${device} has ${content.what}, and no file system: it is not formatted. If nothing on ` +
          'it is needed, clear it by hand (wipefs --all, blkdiscard) and try again.',
      );
    case 'fileSystem':
      if (content.type !== type) {
        throw new VolumeError(
          'refused',
          `${device} has the file system ${content.type}, not ${type}: it is neither mounted as ` +
            `${type} nor formatted. Ask for ${content.type}, or clear it by hand.`,
        );
      }
      if (row.check === null || fsck === 'never' || isReadOnly) return;
      await runTool(host, row.check, device, row.checkOk);
  }
}

/** Makes the file system as large as its disk; one that is as large already stays as it is. */
export async function growFileSystem(
  host: VolumeHost,
  type: FileSystemType,
  device: string,
  mountPath: string,
): Promise<void> {
  const { program, args } = FILE_SYSTEMS[type].grow(device, mountPath);
  await ended(host, program, args, { timeoutMs: LONG_MS_MAX, ok: [0] });
}

export async function mount(host: VolumeHost, args: readonly string[]): Promise<void> {
  await ended(host, 'mount', args, { timeoutMs: MOUNT_MS_MAX, ok: [0] });
}

/** Throws VolumeError `refused` if a process uses the mount; it is never detached by force. */
export async function unmount(host: VolumeHost, path: string): Promise<void> {
  const { status, stderr } = await host.run('umount', [path], MOUNT_MS_MAX);
  if (status === 0) return;
  const isBusy = /busy/.test(stderr);
  throw new VolumeError(isBusy ? 'refused' : 'failed', `umount ${path}: ${words(stderr, status)}`);
}

async function runTool(
  host: VolumeHost,
  { program, args }: Tool,
  device: string,
  ok: readonly number[] = [0],
): Promise<void> {
  await ended(host, program, [...args, device], { timeoutMs: LONG_MS_MAX, ok });
}

async function ended(
  host: VolumeHost,
  program: string,
  args: readonly string[],
  { timeoutMs, ok }: { readonly timeoutMs: number; readonly ok: readonly number[] },
): Promise<void> {
  const end = await host.run(program, args, timeoutMs);
  if (ok.includes(end.status)) return;
  const said = words(`${end.stderr}\n${end.stdout}`, end.status);
  throw new VolumeError('failed', `${program} ${args.join(' ')}: ${said}`);
}

/** The last words of a program, in one line. */
function words(text: string, status: number): string {
  const line = text.trim().replace(/\s+/g, ' ').slice(-500);
  return `${line === '' ? 'it said nothing' : line} (status ${status})`;
}
