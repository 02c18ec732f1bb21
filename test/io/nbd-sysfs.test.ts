import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';
import {
  applyQueueSettings,
  describeHolders,
  ensureNode,
  findByIdentifier,
  findHolders,
  isConfigured,
  listConfigured,
  partitionsOf,
  type SystemPaths,
} from '../../src/io/nbd-sysfs.js';

let root = '';
let paths: SystemPaths;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'nbd-sysfs-'));
  paths = { sys: `${root}/sys`, proc: `${root}/proc`, dev: '/dev' };
});
afterEach(() => rm(root, { recursive: true }));

async function files(content: Record<string, string>): Promise<void> {
  for (const [path, text] of Object.entries(content)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
}

/** Only what these tests reach; sysfs is a folder of plain files here. */
function fakeAddon(calls: Partial<NbdAddon>): NbdAddon {
  return calls as NbdAddon;
}

describe('listConfigured and isConfigured', () => {
  it('the list has the devices with a backend, by index; nbd10 comes after nbd2', async () => {
    await files({
      'sys/block/nbd10/backend': 'second\n',
      'sys/block/nbd2/backend': 'first\n',
      'sys/block/nbd3/size': '0\n',
      'sys/block/sda/backend': 'no\n',
    });
    expect((await listConfigured(paths)).map(({ index }) => index)).toEqual([2, 10]);
    expect(await findByIdentifier('second', paths)).toEqual({
      index: 10,
      path: '/dev/nbd10',
      identifier: 'second',
    });
    expect(await findByIdentifier('sec', paths)).toBeNull();
  });

  it('a device is configured as long as it has a pid file', async () => {
    await files({ 'sys/block/nbd0/pid': '77\n', 'sys/block/nbd1/size': '0\n' });
    expect(await isConfigured(0, paths)).toBe(true);
    expect(await isConfigured(1, paths)).toBe(false);
    expect(await isConfigured(2, paths)).toBe(false);
  });
});

describe('findHolders', () => {
  beforeEach(() =>
    files({
      'sys/block/nbd0/dev': '43:0\n',
      'sys/block/nbd0/nbd0p1/dev': '43:1\n',
      'sys/block/nbd0/nbd0p2/dev': '43:2\n',
      'sys/block/nbd0/nbd0p2/holders/dm-3': '',
    }),
  );

  it('a holder is a mount of the disk or its partitions, by device number, unescaped', async () => {
    await files({
      'proc/self/mountinfo':
        '22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n' +
        '40 22 43:1 / /mnt/my\\040disk rw,relatime - ext4 /dev/disk/by-id/x rw\n',
    });
    const mounts = (await findHolders(0, paths)).filter(({ kind }) => kind === 'mount');
    expect(mounts).toEqual([{ kind: 'mount', device: 'nbd0p1', where: '/mnt/my disk' }]);
  });

  it('a holder is a mount by its source too, since btrfs has device numbers of its own', async () => {
    await files({ 'proc/self/mountinfo': '40 22 0:45 / /srv rw - btrfs /dev/nbd0 rw\n' });
    const holders = await findHolders(0, paths);
    expect(holders[0]).toEqual({ kind: 'mount', device: 'nbd0', where: '/srv' });
  });

  it('a holder is a swap area or a device stacked on top', async () => {
    await files({
      'proc/swaps':
        'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' +
        '/dev/nbd0p1                             partition\t1024\t\t0\t\t-2\n',
    });
    const holders = await findHolders(0, paths);
    expect(describeHolders(holders)).toBe('nbd0p1 is used as swap, nbd0p2 is held by dm-3');
  });

  it('a holder of another disk with a longer number does not count', async () => {
    await files({ 'proc/self/mountinfo': '40 22 43:320 / /srv rw - ext4 /dev/nbd01 rw\n' });
    expect((await findHolders(0, paths)).map(({ kind }) => kind)).toEqual(['holder']);
  });

  it('the text says that a holder is not visible here if none is found', () => {
    expect(describeHolders([])).toContain('not visible here');
  });
});

describe('applyQueueSettings', () => {
  const settings = { ioTimeoutMs: 1500, maxSectorsKb: 4096, rotational: false };
  const queue = 'sys/block/nbd0/queue';
  let written: string[] = [];
  const addon = fakeAddon({
    writeAttribute: async (path, text) => {
      written.push(path.slice(path.lastIndexOf('/') + 1));
      await writeFile(path, text);
    },
  });

  beforeEach(async () => {
    written = [];
    await files({
      [`${queue}/io_timeout`]: '30000\n',
      [`${queue}/max_sectors_kb`]: '128\n',
      [`${queue}/max_hw_sectors_kb`]: '2048\n',
      [`${queue}/scheduler`]: '[mq-deadline] none\n',
      [`${queue}/rotational`]: '0\n',
    });
  });

  it('the request timer is written first, and sizes stop at the maximum of the hardware queue', async () => {
    expect(await applyQueueSettings(addon, 0, settings, paths)).toEqual([]);
    expect(written).toEqual(['io_timeout', 'max_sectors_kb', 'scheduler']);
    expect(await readFile(join(root, queue, 'max_sectors_kb'), 'utf8')).toBe('2048');
  });

  it('a setting that is right already is not written: the scheduler file waits for requests', async () => {
    await files({ [`${queue}/scheduler`]: '[none] mq-deadline\n' });
    await applyQueueSettings(addon, 0, settings, paths);
    expect(written).not.toContain('scheduler');
  });

  it('a setting that is refused is reported and the others are still written', async () => {
    const refusing = fakeAddon({
      writeAttribute: (path, text) =>
        path.endsWith('io_timeout')
          ? Promise.reject(Object.assign(new Error('read-only'), { code: 'EROFS', errno: 30 }))
          : addon.writeAttribute(path, text),
    });
    const refused = await applyQueueSettings(refusing, 0, settings, paths);
    expect(refused).toHaveLength(1);
    expect(refused[0]).toMatch(/io_timeout stays at 30000 instead of 1500 \(EROFS\)/);
    expect(written).toContain('scheduler');
  });
});

describe('ensureNode', () => {
  it('the device node is rejected if another file has its name', async () => {
    paths = { ...paths, dev: `${root}/dev` };
    await files({ 'sys/block/nbd0/dev': '43:0\n', 'dev/nbd0': 'left by a careless dd' });
    const addon = fakeAddon({ makeBlockNode: () => Promise.resolve() });
    await expect(ensureNode(addon, 0, paths)).rejects.toThrow('not block device 43:0');
  });
});

describe('partitionsOf', () => {
  it('the partitions are in bytes, whatever the block size of the disk is', async () => {
    await files({
      'sys/block/nbd0/size': '4096\n',
      'sys/block/nbd0/nbd0p1/start': '2048\n',
      'sys/block/nbd0/nbd0p1/size': '1024\n',
      'sys/block/nbd0/nbd0p2/start': '3072\n',
      'sys/block/nbd0/nbd0p2/size': '8\n',
    });
    expect(partitionsOf(0, paths)).toEqual([
      { startBytes: 1_048_576, endBytes: 1_572_864 },
      { startBytes: 1_572_864, endBytes: 1_576_960 },
    ]);
  });

  it('a disk without a partition table, and a disk that does not exist, have no partitions', async () => {
    await files({ 'sys/block/nbd0/size': '4096\n' });
    expect([partitionsOf(0, paths), partitionsOf(7, paths)]).toEqual([[], []]);
  });
});
