/** LUNs of a target of which one cannot be used, or does not tell all. */
import { describe, expect, it, vi } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import type { CommandContext } from '../../src/target/faults.js';
import type { EmbeddedTarget } from '../helpers/embedded-target.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import type { Served } from '../helpers/served.js';
import {
  answer,
  disk,
  MIB,
  NAME,
  OPCODE,
  STANDBY,
  sense,
  serve,
  start,
  warningsOf,
} from '../helpers/troubled-luns.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 60_000 });

const { testUnitReady: TEST_UNIT_READY, inquiry: INQUIRY, reportLuns: REPORT_LUNS } = OPCODE;
const MODE_SENSES: readonly number[] = [0x1a, 0x5a];
const WRITES: readonly number[] = [0x2a, 0x8a, 0x41, 0x93, 0x42, 0x35];
const RESERVATION_CONFLICT = { status: 0x18 };
const NO_LUN = sense(0x05, 0x25, 0x00);
const ABORTED = sense(0x0b, 0x00, 0x00);

const three = () => ({ 0: disk('ZERO'), 1: disk('ONE'), 2: disk('TWO') });
const exportsOf = async ({ run, socket }: Served): Promise<readonly string[]> => {
  const list = await run('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${socket}`);
  const { exports } = JSON.parse(list) as { exports: { 'export-name': string }[] };
  return exports.map((one) => one['export-name']);
};

const UNUSABLE: readonly (readonly [
  name: string,
  why: RegExp,
  how: (target: EmbeddedTarget, one: TargetDisk) => void,
])[] = [
  [
    'has no medium (02/3A/00)',
    /there is no medium \(02h\/3Ah\/00h\)/,
    (target) => answer(target, 1, sense(0x02, 0x3a, 0x00)),
  ],
  [
    'failed inside (04/44/00)',
    /the target failed inside \(04h\/44h\/00h\)/,
    (target) => answer(target, 1, sense(0x04, 0x44, 0x00)),
  ],
  [
    'is on standby (02/04/0B)',
    /on standby \(02h\/04h\/0Bh\)/,
    (target) => answer(target, 1, STANDBY),
  ],
  [
    'is reserved by another node',
    /RESERVATION CONFLICT/,
    (target) => answer(target, 1, RESERVATION_CONFLICT),
  ],
  [
    'is owned by the other controller (RDAC, 05/94/01)',
    /\(05h\/94h\/01h\)/,
    (target) => answer(target, 1, sense(0x05, 0x94, 0x01)),
  ],
  [
    'has blocks of 520 bytes',
    /520-byte blocks/,
    (_target, one) => {
      one.reportedBlockSizeBytes = 520;
    },
  ],
  [
    'has peripheral qualifier 001b',
    /peripheral qualifier is 001b/,
    (_target, one) => {
      one.peripheralQualifier = 1;
    },
  ],
];

describe('a LUN that cannot be used', () => {
  it.each(UNUSABLE)(
    'LUNs 0 and 2 are served if LUN 1 %s, and a warning names LUN 1 and the reason',
    async (_name, why, how) => {
      const luns = three();
      const target = await start(luns);
      how(target, luns[1]);
      const served = await serve(target.url);
      expect(await exportsOf(served)).toEqual(['0', '2']);
      const [warning, ...others] = warningsOf(served.events);
      expect(warning).toMatch(/^LUN 1 /);
      expect(warning).toMatch(why);
      expect(warning).toMatch(/it is left out$/);
      expect(others).toEqual([]);
      await expect(serve(`${target.url}/1`)).rejects.toThrow(why);
    },
  );

  it('a daemon logs in beside it, and a rescan adds it when it can be used, with status 0', async () => {
    const target = await start(three());
    const back = answer(target, 1, RESERVATION_CONFLICT);
    await using daemon = new DaemonProcess();
    await daemon.start();
    const { portal } = target.server;
    expect(await daemon.run('login', portal, NAME)).toMatchObject({ code: 0 });
    const luns = async () => {
      const { devices } = await daemon.json<{ devices: { lun: number }[] }>('devices');
      return devices.map(({ lun }) => lun);
    };
    expect(await luns()).toEqual([0, 2]);
    target.node.setLun(NAME, 3, disk('THREE'));
    expect((await daemon.run('rescan', NAME)).code).toBe(0);
    expect(await luns()).toEqual([0, 2, 3]);
    back();
    expect((await daemon.run('rescan', NAME)).code).toBe(0);
    expect((await luns()).sort()).toEqual([0, 1, 2, 3]);
    await daemon.stop();
  });

  it('the error names each LUN with its reason if none can be used', async () => {
    const target = await start({ 4: disk('FOUR') });
    answer(target, 4, sense(0x02, 0x3a, 0x00));
    await expect(serve(target.url)).rejects.toMatchObject({
      exitCode: 21,
      message: expect.stringMatching(/no disk for this initiator: LUN 4 .*there is no medium/),
    });
  });
});

describe('a target that does not list its LUNs', () => {
  it('LUN 5 is served if LUN 0 is not supported (05/25), by the REPORT LUNS well-known LUN', async () => {
    const target = await start({ 5: disk('FIVE'), 7: disk('SEVEN') });
    answer(target, 0, NO_LUN, () => true);
    const five = await serve(`${target.url}/5`, { readOnly: true });
    expect(await exportsOf(five)).toEqual(['']);
    const all = await serve(target.url);
    expect(await exportsOf(all)).toEqual(['5', '7']);
    expect(warningsOf(all.events)).toEqual([]);
  });

  it('easyRAID and transtec: the named LUN, or LUN 0, is served without REPORT LUNS', async () => {
    const target = await start({ 0: disk('ZERO'), 5: disk('FIVE') });
    target.node.faults.onCommand = ({ opcode }) =>
      opcode === REPORT_LUNS ? sense(0x05, 0x20, 0x00) : undefined;
    const five = await serve(`${target.url}/5`);
    expect(await exportsOf(five)).toEqual(['']);
    expect(warningsOf(five.events)[0]).toMatch(/does not say which LUNs.*05h\/20h.*LUN 5 is asked/);
    const zero = await serve(target.url);
    expect(await exportsOf(zero)).toEqual(['0']);
    await expect(serve(`${target.url}/6`)).rejects.toMatchObject({ exitCode: 21 });
  });

  it('a named LUN that the list does not have is served with a warning, and one that is not there is an error at once', async () => {
    const target = await start({ 0: disk('ZERO'), 5: disk('FIVE') });
    target.node.faults.onSend = (header, data) => {
      // The list of LUNs: 16 bytes, of which the second LUN is cut off.
      const isList = (header[0]! & 0x3f) === 0x25 && data.length === 24;
      if (isList && data.readUInt32BE(0) === 16) data.writeUInt32BE(8, 0);
      return undefined;
    };
    const five = await serve(`${target.url}/5`);
    expect(await exportsOf(five)).toEqual(['']);
    expect(warningsOf(five.events)[0]).toMatch(/^LUN 5 is a disk, and the target does not list it/);
    const beganAtMs = performance.now();
    await expect(serve(`${target.url}/6`)).rejects.toMatchObject({ exitCode: 21 });
    expect(performance.now() - beganAtMs).toBeLessThan(5000);
  });
});

describe('a disk that does not tell all', () => {
  it('a Write Exclusive reservation of another node leaves reads working, at first and after a relogin', async () => {
    const zero = disk('ZERO');
    zero.write(0, Buffer.alloc(4096, 0x5a));
    const target = await start({ 0: zero });
    const conflicts = ({ opcode }: CommandContext) =>
      MODE_SENSES.includes(opcode) || WRITES.includes(opcode);
    answer(target, 0, RESERVATION_CONFLICT, conflicts);
    const served = await serve(`${target.url}/0`);
    const client = await RawNbd.open(served.socket);
    const read = async () => client.request(NBD.read, { length: 4096 });
    expect((await read()).data.equals(Buffer.alloc(4096, 0x5a))).toBe(true);
    expect(warningsOf(served.events).join()).toMatch(/MODE SENSE.*RESERVATION CONFLICT/);
    for (let round = 0; round < 3; round += 1) {
      target.node.dropConnections();
      const { error, data } = await read();
      expect([error, data.equals(Buffer.alloc(4096, 0x5a))]).toEqual([0, true]);
    }
    client.close();
  });

  it('a write cache that was known stays known if MODE SENSE is refused after a relogin', async () => {
    const zero = disk('ZERO', { writeCache: 'volatile' });
    const target = await start({ 0: zero });
    const served = await serve(`${target.url}/0`, { retainWrites: 'never' });
    const client = await RawNbd.open(served.socket);
    const data = Buffer.alloc(4096, 0x33);
    answer(target, 0, RESERVATION_CONFLICT, ({ opcode }) => MODE_SENSES.includes(opcode));
    target.node.dropConnections();
    expect((await client.request(NBD.write, { data })).error).toBe(0);
    for (const link of target.node.connections) link.drop();
    zero.powerLoss();
    target.node.raiseAttention(NAME, 0, { asc: 0x29, ascq: 0 });
    expect((await client.request(NBD.flush)).error).toBe(5);
    client.close();
  });

  it.each([
    ['VPD page 00h with ABORTED COMMAND', ABORTED, 0x00],
    ['VPD page B0h with BUSY', { status: 0x08 }, 0xb0],
    ['VPD page 83h with HARDWARE ERROR', sense(0x04, 0x44, 0x00), 0x83],
  ])('a disk is served, with a warning, if it answers %s', async (_name, reply, page) => {
    const target = await start({ 0: disk('ZERO') });
    const isMeant = ({ opcode, cdb }: CommandContext) =>
      opcode === INQUIRY && (cdb[1]! & 1) === 1 && cdb[2] === page;
    answer(target, 0, reply, isMeant);
    const served = await serve(`${target.url}/0`);
    const client = await RawNbd.open(served.socket);
    expect((await client.request(NBD.write, { data: Buffer.alloc(4096, 1) })).error).toBe(0);
    const hex = page.toString(16).padStart(2, '0');
    expect(warningsOf(served.events).join()).toMatch(new RegExp(`VPD page ${hex} cannot be read`));
    client.close();
  });

  const isPage = (page: number) => (context: CommandContext) =>
    context.opcode === INQUIRY && (context.cdb[1]! & 1) === 1 && context.cdb[2] === page;
  it.each<[string, (context: CommandContext) => boolean, RegExp]>([
    ['VPD page 00h', isPage(0x00), /VPD page 00 cannot be read/],
    ['VPD page 83h', isPage(0x83), /VPD page 83 cannot be read/],
    ['VPD page B0h', isPage(0xb0), /VPD page b0 cannot be read/],
    ['MODE SENSE', ({ opcode }) => MODE_SENSES.includes(opcode), /MODE SENSE.* cannot be read/],
    ['READ CAPACITY(16)', ({ opcode }) => opcode === 0x9e, /READ CAPACITY\(16\) cannot be read/],
  ])(
    'a disk is served at first and after a relogin if it answers %s with CHECK CONDITION without sense',
    async (_name, isMeant, warning) => {
      const target = await start({ 0: disk('ZERO') });
      answer(target, 0, { status: 0x02 }, isMeant);
      const served = await serve(`${target.url}/0`);
      const client = await RawNbd.open(served.socket);
      for (const value of [1, 2]) {
        const data = Buffer.alloc(4096, value);
        expect((await client.request(NBD.write, { data })).error).toBe(0);
        expect((await client.request(NBD.read, { length: 4096 })).data.equals(data)).toBe(true);
        if (value === 1) target.node.dropConnections();
      }
      expect(warningsOf(served.events).join()).toMatch(warning);
      client.close();
    },
  );

  it('a disk that refuses transfers over 1 MiB is written, and a warning reports each shorter limit', async () => {
    const zero = TargetDisk.ram({ sizeBytes: 16 * MIB, serial: 'ZERO' });
    const target = await start({ 0: zero });
    const lengths: number[] = [];
    answer(target, 0, sense(0x05, 0x24, 0x00), ({ blockCount, expectedBytes }) => {
      if (blockCount !== null) lengths.push(expectedBytes);
      return blockCount !== null && expectedBytes > MIB;
    });
    const served = await serve(`${target.url}/0`);
    const client = await RawNbd.open(served.socket);
    const data = Buffer.alloc(8 * MIB, 0x77);
    for (let round = 0; round < 2; round += 1) {
      expect((await client.request(NBD.write, { data })).error).toBe(0);
      expect(zero.read(0, data.length).equals(data)).toBe(true);
      if (round === 0) lengths.length = 0;
    }
    expect(Math.max(...lengths)).toBe(MIB);
    const cuts = warningsOf(served.events).filter((text) => text.includes('refused a transfer'));
    expect(cuts.map((text) => text.match(/\d+ KiB/g))).toEqual([
      ['8192 KiB', '4096 KiB'],
      ['4096 KiB', '2048 KiB'],
      ['2048 KiB', '1024 KiB'],
    ]);
    expect(cuts[0]).toMatch(/^LUN 0 .*and no request fails for it$/);
    client.close();
  });

  it('a held write waits while the identity cannot be read after an outage, and reaches no other disk', async () => {
    for (const isOther of [false, true]) {
      const zero = disk('ZERO');
      const other = disk('OTHER');
      const target = await start({ 0: zero });
      const served = await serve(`${target.url}/0`, { removalLatencySeconds: 30 });
      const client = await RawNbd.open(served.socket);
      let probes = 0;
      const back = answer(target, 0, ABORTED, ({ opcode, cdb }) => {
        if (opcode === TEST_UNIT_READY) probes += 1;
        return opcode === INQUIRY && (cdb[1]! & 1) === 1;
      });
      if (isOther) target.node.targets.get(NAME)?.luns.set(0, other);
      target.node.dropConnections();
      let reply: { error: number } | null = null;
      const data = Buffer.alloc(4096, 0x44);
      const writing = client.request(NBD.write, { data }).then((one) => {
        reply = one;
      });
      await expect.poll(() => probes, { timeout: 20_000 }).toBeGreaterThan(3);
      expect(reply).toBeNull();
      back();
      await writing;
      expect(reply).toMatchObject({ error: isOther ? 5 : 0 });
      expect(zero.read(0, 4096).equals(data)).toBe(!isOther);
      expect(other.extent(0, MIB).mapped).toBe(false);
      client.close();
    }
  });
});
