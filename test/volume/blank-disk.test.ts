import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { contentOf } from '../../src/volume/blank-disk.js';
import { readyFileSystem } from '../../src/volume/file-system.js';
import { systemHost } from '../../src/volume/system-host.js';
import type { VolumeError } from '../../src/volume/volume-error.js';

const MIB = 1 << 20;
const SIZE = 16 * MIB;
const KIB = 1024;

let folder: string;
let disk: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-blank-'));
  disk = join(folder, 'disk');
  writeFileSync(disk, '');
  truncateSync(disk, SIZE);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Bytes at an offset; a negative one counts from the end. */
type Piece = readonly [offset: number, bytes: string | readonly number[]];

/** Signatures where each format has its own, from the formats' own documents. */
const WRITTEN: Readonly<Record<string, readonly Piece[]>> = {
  XFS: [[0, 'XFSB\0\0\x10\0']],
  btrfs: [[64 * KIB + 64, '_BHRfS_M']],
  ReiserFS: [[64 * KIB + 52, 'ReIsEr2Fs']],
  JFS: [[32 * KIB, 'JFS1']],
  F2FS: [[KIB, [0x10, 0x20, 0xf5, 0xf2]]],
  NILFS2: [[KIB + 6, [0x34, 0x34]]],
  'HFS+': [[KIB, 'H+']],
  APFS: [[32, 'NXSB']],
  minix: [[KIB + 16, [0x8f, 0x13]]],
  erofs: [[KIB, [0xe2, 0xe1, 0xf5, 0xe0]]],
  squashfs: [[0, 'hsqs']],
  romfs: [[0, '-rom1fs-']],
  GFS2: [[64 * KIB, [0x01, 0x16, 0x19, 0x70]]],
  OCFS2: [[2 * KIB, 'OCFSV2']],
  NTFS: [
    [3, 'NTFS    '],
    [510, [0x55, 0xaa]],
  ],
  exFAT: [
    [3, 'EXFAT   '],
    [510, [0x55, 0xaa]],
  ],
  FAT32: [
    [82, 'FAT32   '],
    [510, [0x55, 0xaa]],
  ],
  'ISO 9660': [[32 * KIB, '\x01CD001\x01']],
  UDF: [[32 * KIB, '\0BEA01\x01']],
  LVM2: [
    [512, 'LABELONE'],
    [536, 'LVM2 001'],
  ],
  'md 1.2, four KiB from the start': [[4 * KIB, [0xfc, 0x4e, 0x2b, 0xa9, 1]]],
  'md 1.0, at the end': [[-8 * KIB, [0xfc, 0x4e, 0x2b, 0xa9, 1]]],
  'md 0.90, at the end': [[-64 * KIB, [0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0, 90]]],
  'LUKS 1': [[0, 'LUKS\xba\xbe\0\x01']],
  'LUKS 2, second header only': [[16 * KIB, 'SKUL\xba\xbe\0\x02']],
  BitLocker: [[3, '-FVE-FS-']],
  'ZFS, label at the end only': [[-128 * KIB, [0x0c, 0xb1, 0xba, 0x00]]],
  bcache: [[4 * KIB + 24, [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]]],
  'Ceph BlueStore': [[0, 'bluestore block device\n']],
  'Oracle ASM': [[32, 'ORCLDISK']],
  'GPT, backup header only': [[-512, 'EFI PART\0\0\x01\0']],
  'a tar archive': [[257, 'ustar  ']],
  'random bytes': [[512, [...createHash('sha512').update('random').digest()]]],
  'one bit at the end of the first MiB': [[MIB - 1, [1]]],
  'one bit at the begin of the last MiB': [[-MIB, [0x80]]],
  'one bit at the very end': [[-1, [1]]],
};

const MADE: Readonly<Record<string, readonly string[]>> = {
  ext2: ['mkfs.ext2', '-q', '-F'],
  ext3: ['mkfs.ext3', '-q', '-F'],
  ext4: ['mkfs.ext4', '-q', '-F'],
  swap: ['mkswap'],
  MBR: ['sfdisk', '--quiet', '--label', 'dos'],
  GPT: ['sfdisk', '--quiet', '--label', 'gpt'],
};

function write(pieces: readonly Piece[]): void {
  const file = openSync(disk, 'r+');
  for (const [offset, bytes] of pieces) {
    const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes);
    writeSync(file, data, 0, data.length, offset < 0 ? SIZE + offset : offset);
  }
  closeSync(file);
}

function make([program = '', ...args]: readonly string[]): void {
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };
  const input = program === 'sfdisk' ? ',8M\n' : '';
  execFileSync(program, [...args, disk], { env, input, stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Changes with every write. */
function version(): string {
  const { mtimeNs, ctimeNs } = statSync(disk, { bigint: true });
  return `${mtimeNs} ${ctimeNs}`;
}

async function faultOf(type: 'ext4' | 'xfs'): Promise<string> {
  const options = { device: disk, type, fsck: 'auto', isReadOnly: false } as const;
  return readyFileSystem(systemHost, options).then(
    () => 'none',
    (error: VolumeError) => error.fault,
  );
}

describe('a disk with something on it', () => {
  it('the kinds are more than 30', () => {
    expect(Object.keys(WRITTEN).length + Object.keys(MADE).length).toBeGreaterThanOrEqual(30);
  });

  it.each(Object.keys(WRITTEN))('a disk with %s is never formatted', async (name) => {
    write(WRITTEN[name] ?? []);
    const before = version();
    expect((await contentOf(systemHost, disk)).kind).not.toBe('blank');
    expect(await faultOf('ext4')).toBe('refused');
    expect(version()).toBe(before);
  });

  it.each(Object.keys(MADE))('a disk that was made into %s is never formatted', async (name) => {
    make(MADE[name] ?? []);
    const before = version();
    expect((await contentOf(systemHost, disk)).kind).not.toBe('blank');
    expect(await faultOf('xfs')).toBe('refused');
    expect(version()).toBe(before);
  });

  it('data is found where blkid finds nothing, and blkid runs if there are zeros', async () => {
    const silent = { ...systemHost, run: async () => ({ status: 2, stdout: '', stderr: '' }) };
    expect(await contentOf(silent, disk)).toEqual({ kind: 'blank' });
    write([[MIB - 1, [1]]]);
    expect(await contentOf(silent, disk)).toMatchObject({ kind: 'other' });
    write([[MIB - 1, [0]]]);
    for (const status of [0, 1, 4, 8, 127]) {
      const host = { ...systemHost, run: async () => ({ status, stdout: '', stderr: '' }) };
      const kind = await contentOf(host, disk).then(
        (content) => content.kind,
        () => 'failure',
      );
      expect(kind, `status ${status}`).not.toBe('blank');
    }
  });

  it('a disk that reads short, or has no size, is not blank', async () => {
    const short = { ...systemHost, read: async () => Buffer.alloc(512) };
    await expect(contentOf(short, disk)).rejects.toThrow(/cannot be read as a whole/);
    const empty = { ...systemHost, sizeOf: async () => 0 };
    await expect(contentOf(empty, disk)).rejects.toThrow(/has no size/);
  });
});

describe('a blank disk', () => {
  it('a blank disk gets its file system once, and is checked the next time', async () => {
    expect(await contentOf(systemHost, disk)).toEqual({ kind: 'blank' });
    expect(await faultOf('ext4')).toBe('none');
    const uuid = () => execFileSync('/usr/sbin/blkid', ['-p', '-o', 'value', '-s', 'UUID', disk]);
    const first = uuid();
    expect(await faultOf('ext4')).toBe('none');
    expect(uuid()).toEqual(first);
  });

  it('a blank disk that is read-only stays blank', async () => {
    const options = { device: disk, type: 'ext4', fsck: 'auto', isReadOnly: true } as const;
    await expect(readyFileSystem(systemHost, options)).rejects.toThrow(/blank, and read-only/);
    expect(await contentOf(systemHost, disk)).toEqual({ kind: 'blank' });
  });
});
