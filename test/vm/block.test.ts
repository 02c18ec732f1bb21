import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type * as Library from '../../src/library.js';
import { startTgt } from '../helpers/tgt.js';
import { attach, cleanUp, run, shell, sizeOf } from './attached.js';
import { commandsDuring, startLio } from './lio.js';
import { MIB } from './targets.js';

const IQN = 'iqn.2003-01.org.linux-iscsi:block';
const PORTAL = '127.0.0.1:3270';
const URL = `iscsi://${PORTAL}/${IQN}`;
const SIZE = 16 * MIB;

/** SBC-3 and SPC-4. */
const OPCODE = { write10: 0x2a, synchronizeCache10: 0x35, reserve6: 0x16, release6: 0x17 } as const;
const FUA = 0x08;

let folder = '';
let loop = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'block-'));
  loop = '';
});

afterEach(async () => {
  await cleanUp();
  if (loop !== '') await run('losetup', '-d', loop).catch(() => undefined);
  await rm(folder, { recursive: true });
});

/** Bytes the file system has for a file. */
async function allocated(file: string): Promise<number> {
  return (await stat(file)).blocks * 512;
}

/**
 * blkdiscard and fstrim on a device whose blocks `file` has: what they take away is not allocated
 * any more, and nothing else is gone.
 */
async function trims(device: string, file: string): Promise<void> {
  const mount = join(folder, 'mnt');
  await shell(
    `dd if=/dev/urandom of=${device} bs=1M count=${SIZE / MIB} oflag=direct conv=fsync status=none`,
  );
  expect(await allocated(file)).toBe(SIZE);
  await shell(`blkdiscard -o ${4 * MIB} -l ${4 * MIB} ${device}`);
  expect(await allocated(file)).toBe(SIZE - 4 * MIB);
  await mkdir(mount, { recursive: true });
  // Without a discard of its own: the rest of the disk stays allocated until fstrim.
  await shell(`mkfs.ext4 -q -O ^has_journal -E nodiscard ${device}; mount ${device} ${mount}
    dd if=/dev/urandom of=${mount}/kept bs=1M count=2 conv=fsync status=none
    sha256sum ${mount}/kept >${folder}/sum`);
  expect(await allocated(file)).toBeGreaterThanOrEqual(SIZE - 4 * MIB);
  await shell(`fstrim ${mount}; sync ${mount}`);
  expect(await allocated(file)).toBeGreaterThanOrEqual(2 * MIB);
  expect(await allocated(file)).toBeLessThan(6 * MIB);
  await shell(`umount ${mount}; mount -o ro ${device} ${mount}
    sha256sum -c ${folder}/sum; umount ${mount}; e2fsck -fn ${device}`);
}

type Extent = { readonly start: number; readonly length: number; readonly zero: boolean };

/** What `qemu-img map` says of a LUN's export on a socket. */
async function map(url: string): Promise<Extent[]> {
  const command = 'qemu-img map --output=json -f raw "$uri"';
  const out = await run(process.execPath, 'dist/cli/main.js', 'serve', url, '--run', command);
  return JSON.parse(out) as Extent[];
}

const zeroBytes = (extents: readonly Extent[]): number =>
  extents.reduce((sum, { length, zero }) => sum + (zero ? length : 0), 0);

describe('block commands on foreign targets, from the device to the backing file', () => {
  it('LIO: discards free space, FUA and flushes arrive, growth is detected, reservations are reported', {
    timeout: 900_000,
  }, async () => {
    const file = join(folder, 'file');
    const looped = join(folder, 'looped');
    await run('modprobe', 'loop');
    await run('truncate', '-s', String(SIZE), looped);
    loop = (await run('losetup', '--find', '--show', looped)).trim();
    await using _lio = await startLio({
      luns: [
        { file, sizeBytes: SIZE, attributes: { emulate_tpu: 1, emulate_write_cache: 1 } },
        { file: loop, isBlockDevice: true, attributes: { emulate_tpu: 1 } },
      ],
      iqn: IQN,
      portals: [PORTAL],
    });
    const attached = await attach(URL, [], { count: 2 });
    const [onFile, onLoop] = attached.ready.map((event) => String(event['device'])) as [
      string,
      string,
    ];
    expect(attached.ready.map((event) => event['lun'])).toEqual([0, 1]);

    // LIO does not report it: the size is polled. The end of this test reads it again.
    await shell(`truncate -s ${2 * SIZE} ${looped}; losetup --set-capacity ${loop}`);

    const stable = await commandsDuring(() =>
      shell(`dd if=/dev/zero of=${onFile} bs=4k seek=3 count=1 oflag=direct,dsync status=none`),
    );
    const writes = stable.filter(({ cdb }) => cdb[0] === OPCODE.write10);
    expect(writes.map(({ cdb }) => [cdb[1], cdb.readUInt32BE(2)])).toEqual([[FUA, 24]]);

    const flushed = await commandsDuring(() =>
      shell(
        `dd if=/dev/zero of=${onFile} bs=4k seek=5 count=1 oflag=direct conv=fsync status=none`,
      ),
    );
    const changes = flushed.filter(({ lun, cdb }) => lun === 0 && cdb[0] !== 0x28);
    expect(changes.map(({ cdb }) => [cdb[0], cdb[1]])).toEqual([
      [OPCODE.write10, 0],
      [OPCODE.synchronizeCache10, 0],
    ]);

    await trims(onFile, file);
    await trims(onLoop, looped);

    await reservations(onFile, attached);

    await attached.waitFor('deviceResized', { lun: 1, sizeBytes: 2 * SIZE });
    expect(await sizeOf(onLoop)).toBe(2 * SIZE);
    expect(await attached.end('SIGTERM')).toBe(0);

    // LIO knows no GET LBA STATUS: all blocks without a status count as data.
    const extents = await map(`${URL}/0`);
    expect(zeroBytes(extents)).toBe(0);
    expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
  });

  it('tgt: discards free space, and qemu-img map shows the holes', {
    timeout: 600_000,
  }, async () => {
    const file = join(folder, 'file');
    const params = { thin_provisioning: 1 };
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: SIZE, params }] });
    const attached = await attach(tgt.url());
    await trims(attached.device, file);
    expect(await attached.end('SIGTERM')).toBe(0);
    // The holes are those of the file, as the file system has them.
    expect(zeroBytes(await map(tgt.url()))).toBe(SIZE - (await allocated(file)));
  });
});

/** While another initiator has the unit reserved, requests fail and say why; then they succeed. */
async function reservations(
  device: string,
  attached: Awaited<ReturnType<typeof attach>>,
): Promise<void> {
  // As compiled: the sources would have to be transformed first, which takes long in here.
  const load = createRequire(import.meta.url);
  const { openSession } = load(resolve('dist/library.js')) as typeof Library;
  const other = await openSession(`${URL}/0`, { initiatorName: 'iqn.2024-01.com.example:other' });
  try {
    const command = (opcode: number) =>
      other.execute({
        lun: 0,
        cdb: Buffer.from([opcode, 0, 0, 0, 0, 0]),
        direction: 'none',
        length: 0,
      });
    expect((await command(OPCODE.reserve6)).status).toBe(0);
    const write = `dd if=/dev/zero of=${device} bs=4k count=1 oflag=direct status=none`;
    await expect(shell(write)).rejects.toThrow(/error/i);
    const told = await attached.waitFor('ioError', { lun: 0, errno: 'EPERM' });
    expect(told['reason']).toMatch(/another initiator has reserved/);
    expect((await command(OPCODE.release6)).status).toBe(0);
    await shell(write);
  } finally {
    await other.close();
  }
}
