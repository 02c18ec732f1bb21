import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { attach, attributeOf, cleanUp, run, shell, sizeOf } from './attached.js';
import { allLuns, MIB } from './targets.js';

const TIB = 2 ** 40;
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shapes-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

describe('disks of every shape', () => {
  it('disks of 4096-byte blocks, beyond 2 TiB, and read-only work side by side', async () => {
    const large = join(folder, 'large');
    await using tgt = await startTgt({
      luns: [
        { sizeBytes: 8 * MIB, blockSize: 4096 },
        { file: large, sizeBytes: 3 * TIB },
        { sizeBytes: 8 * MIB, readOnly: true },
      ],
    });
    const attached = await attach(allLuns(tgt), [], { count: 3 });
    const [wide, huge, fixed] = attached.ready.map((event) => String(event['device'])) as [
      string,
      string,
      string,
    ];
    expect(await attributeOf(wide, 'queue/logical_block_size')).toBe('4096');
    await shell(`
      dd if=/dev/urandom of=${folder}/bytes bs=4k count=64 status=none
      dd if=${folder}/bytes of=${wide} bs=4k seek=1984 oflag=direct status=none
      dd if=${wide} bs=4k skip=1984 iflag=direct status=none | cmp - ${folder}/bytes
    `);
    expect(await sizeOf(huge)).toBe(3 * TIB);
    const lastBlocks = 3 * 2 ** 28 - 64;
    await shell(`
      dd if=${folder}/bytes of=${huge} bs=4k seek=${lastBlocks} oflag=direct status=none
      dd if=${large} bs=4k skip=${lastBlocks} status=none | cmp - ${folder}/bytes
      dd if=${huge} bs=4k count=64 iflag=direct status=none | cmp - <(head -c 262144 /dev/zero)
    `);
    expect(await attributeOf(fixed, 'ro')).toBe('1');
    expect(attached.ready[2]).toMatchObject({ readOnly: true });
    await expect(
      run('dd', 'if=/dev/zero', `of=${fixed}`, 'count=1', 'oflag=direct'),
    ).rejects.toThrow();
    expect(await attached.end('SIGTERM')).toBe(0);
  });

  it('a disk grows while it is mounted', async () => {
    const file = join(folder, 'disk');
    const mount = join(folder, 'mnt');
    await mkdir(mount);
    await run('truncate', '-s', String(64 * MIB), file);
    await using tgt = await startTgt({ luns: [{ file }] });
    const attached = await attach(tgt.url(), ['--reconnect-interval', '1']);
    const { device } = attached;
    await shell(`mkfs.ext4 -q ${device}; mount ${device} ${mount}; echo kept >${mount}/kept`);
    // tgt reads a backing file's size when it opens it: the new size comes with a new login.
    await tgt.kill();
    await run('truncate', '-s', String(128 * MIB), file);
    await tgt.restart();
    await attached.waitFor('deviceResized', { sizeBytes: 128 * MIB });
    expect(await sizeOf(device)).toBe(128 * MIB);
    await shell(`
      resize2fs ${device} 2>&1; test $(stat -f -c %b ${mount}) -gt 24000
      dd if=/dev/zero of=${mount}/more bs=1M count=80 conv=fsync status=none
      test "$(cat ${mount}/kept)" = kept; umount ${mount}; e2fsck -fn ${device}
    `);
    expect(await attached.end('SIGTERM')).toBe(0);
  });
});
