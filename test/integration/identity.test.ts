import { afterEach, describe, expect, it } from 'vitest';
import type { ServeOptions } from '../../src/config/contract.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { serveEmbedded } from '../helpers/served.js';

/**
 * Another disk of the same make and size takes the place of the one that is served, while a write
 * is held. Both disks are read back behind the target's door.
 */

const MIB = 1 << 20;
const EIO = 5;
const WRITE_10 = 0x2a;
const INQUIRY_CHANGED = { asc: 0x3f, ascq: 0x03 };
const NAA = '6001405000000000000000000000000';
const NAMELESS: TargetDiskOptions = { serial: '', naa: '' };

type Served = Awaited<ReturnType<typeof serveEmbedded>>;
let served: Served | null = null;
afterEach(async () => {
  await served?.[Symbol.asyncDispose]();
  served = null;
});

const filled = (options: TargetDiskOptions, fill: number): TargetDisk => {
  const disk = TargetDisk.ram({ sizeBytes: MIB, ...options });
  disk.write(0, Buffer.alloc(MIB, fill));
  return disk;
};

/** What a held write came to when `after` stands where `before` stood; null: the same disk. */
async function exchange(
  before: TargetDiskOptions,
  after: TargetDiskOptions | null,
  options: Partial<ServeOptions> = {},
) {
  served = await serveEmbedded({ sizeBytes: MIB, ...before }, options);
  const { node, disk, targetName, socket } = served;
  disk.write(0, Buffer.alloc(MIB, 0x11));
  const other = after === null ? disk : filled(after, 0x22);
  const client = await RawNbd.open(socket);
  // The first write is never answered: it is in flight when the link goes, and held.
  let ignored = 0;
  node.faults.onCommand = ({ opcode }) => {
    if (opcode !== WRITE_10 || ignored > 0) return undefined;
    ignored += 1;
    return 'ignore';
  };
  const write = client.request(NBD.write, { offset: 4096, data: Buffer.alloc(4096, 0x33) });
  await expect.poll(() => ignored).toBe(1);
  node.targets.get(targetName)?.luns.set(0, other);
  node.dropConnections();
  const { error } = await write;
  const isWrittenTo = (one: TargetDisk) => one.read(4096, 4096).equals(Buffer.alloc(4096, 0x33));
  return {
    error,
    onOwn: isWrittenTo(disk),
    onOther: after !== null && isWrittenTo(other),
    otherIsAsBefore: after === null || other.read(0, MIB).equals(Buffer.alloc(MIB, 0x22)),
  };
}

const removal = () => {
  const event = served?.events.find((one) => one.event === 'deviceRemoved');
  return event?.event === 'deviceRemoved' ? event.reason : null;
};
const warnings = () =>
  (served?.events ?? []).flatMap((one) => (one.event === 'warning' ? [one.message] : []));

describe('a held write', () => {
  it.each<[string, TargetDiskOptions, TargetDiskOptions]>([
    [
      'another registered NAA name, with equal T10 text and serial number',
      { serial: 'SAME', naa: `${NAA}a` },
      { serial: 'SAME', naa: `${NAA}b` },
    ],
    ['neither identifier nor serial number, as the one before', NAMELESS, NAMELESS],
    [
      'another NAA name, on devices that look at the low byte of INQUIRY’s allocation length',
      { serial: '', naa: `${NAA}a`, shortAllocationLength: true },
      { serial: '', naa: `${NAA}b`, shortAllocationLength: true },
    ],
  ])('a held write never reaches a disk with %s', async (_how, before, after) => {
    const result = await exchange(before, after);
    expect(result).toEqual({ error: EIO, onOwn: false, onOther: false, otherIsAsBefore: true });
    await expect.poll(removal).toMatch(/^another disk (has|may have) this LUN now: /);
  });

  it.each<[string, TargetDiskOptions]>([
    ['a registered name', { serial: '', naa: `${NAA}a` }],
    ['a serial number', { serial: 'SERIAL', naa: '' }],
    [
      'page 83h on a device that looks at the low byte of INQUIRY’s allocation length',
      { serial: '', naa: `${NAA}a`, shortAllocationLength: true },
    ],
  ])('a held write reaches its own disk when that is back, known by %s', async (_how, disk) => {
    expect(await exchange(disk, null)).toMatchObject({ error: 0, onOwn: true });
    expect(removal()).toBeNull();
    expect(warnings()).toEqual([]);
  });
});

describe('a disk without identity', () => {
  it('the warning at attach names the missing fields, the effect, and the option', async () => {
    served = await serveEmbedded({ sizeBytes: MIB, ...NAMELESS });
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toMatch(/^LUN 0: .*83h.*80h.*after an outage.*allowUnidentified/);
  });

  it('a second warning reports that the disk does not report its write cache either', async () => {
    served = await serveEmbedded({ sizeBytes: MIB, ...NAMELESS, cachingPage: false });
    expect(warnings()).toHaveLength(2);
    expect(warnings()[1]).toMatch(/^LUN 0: the disk has no caching mode page/);
  });

  it('held requests reach the disk if the option allowUnidentified is set', async () => {
    const result = await exchange(NAMELESS, null, { allowUnidentified: true });
    expect(result).toMatchObject({ error: 0, onOwn: true });
    expect(warnings()).toHaveLength(1);
    expect(warnings()[0]).toMatch(/^LUN 0: .*allowUnidentified is set/);
  });

  it('the option accepts another disk of the same make and size, and no other', async () => {
    expect(await exchange(NAMELESS, NAMELESS, { allowUnidentified: true })).toMatchObject({
      error: 0,
      onOwn: false,
      onOther: true,
    });
    await served?.[Symbol.asyncDispose]();
    const another = { ...NAMELESS, product: 'ANOTHER' };
    expect(await exchange(NAMELESS, another, { allowUnidentified: true })).toMatchObject({
      error: EIO,
      otherIsAsBefore: true,
    });
  });

  it('the disk is removed when its INQUIRY data change in a living session', async () => {
    served = await serveEmbedded({ sizeBytes: MIB, ...NAMELESS });
    const other = filled(NAMELESS, 0x22);
    other.announcesChanges = false;
    served.node.targets.get(served.targetName)?.luns.set(0, other);
    served.node.raiseAttention(served.targetName, 0, INQUIRY_CHANGED);
    const client = await RawNbd.open(served.socket);
    const { error } = await client.request(NBD.write, { data: Buffer.alloc(4096, 0x33) });
    expect(error).toBe(EIO);
    expect(other.read(0, MIB).equals(Buffer.alloc(MIB, 0x22))).toBe(true);
    await expect.poll(removal).toMatch(/^another disk may have this LUN now: /);
  });
});
