import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { INITIATOR, judge, Workplace } from '../helpers/command-process.js';
import { checked } from '../helpers/published-schema.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';

const MIB = 1 << 20;
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 120_000;
let tgt: Tgt;
let place: Workplace;

beforeAll(async () => {
  place = await Workplace.make();
  tgt = await startTgt({
    luns: [
      { sizeBytes: 64 * MIB, params: { scsi_sn: 'serial-1', vendor_id: 'ACME' } },
      { sizeBytes: 16 * MIB, blockSize: 4096 },
    ],
    targets: [{ iqn: 'iqn.2024-01.com.example:second', luns: [{ sizeBytes: MIB }] }],
  });
});

afterAll(async () => {
  await tgt.stop();
  await place[Symbol.asyncDispose]();
});

const target = () => `iscsi://127.0.0.1:${tgt.port}/${tgt.iqn}`;

/** What a command prints for programs, as its published schema has it. */
async function json<T>(schema: string, ...args: string[]): Promise<T> {
  return checked(schema, await good(...args, '--json')) as T;
}

async function good(...args: string[]): Promise<string> {
  const { code, out, err } = await place.run(args);
  expect(err).toBe('');
  expect(code).toBe(0);
  return out;
}

describe('explain as a process', { timeout: SLOW }, () => {
  it.each([
    ['24', 'exitCode', 'the iscsi-nbd command', /EXIT STATUS/],
    ['0203', 'loginStatus', 'iSCSI login', /RFC 7143 §11\.13\.5/],
    ['06/29/00', 'sense', 'SCSI: the device itself', /SPC-4/],
    ['EIO', 'errno', 'the block device or NBD export', /NBD protocol/],
    ['ECONNREFUSED', 'errno', 'the network to the target', /errno\(3\)/],
  ])('the explanation of %s has its meaning, its layer and its reference', async (...row) => {
    const [code, kind, layer, reference] = row;
    const [told, view] = await Promise.all([
      good('explain', code),
      json('explain', 'explain', code),
    ]);
    expect(view).toMatchObject({ kind, layer, reference: expect.stringMatching(reference) });
    expect(told).toMatch(new RegExp(`^layer +${layer}$`, 'm'));
    expect(told).toMatch(/^next step +\S/m);
  });
});

describe('the compiled command against tgt', { timeout: SLOW }, () => {
  it('discover prints a row per portal, with the URL for other commands', async () => {
    const lines = (await good('discover', `127.0.0.1:${tgt.port}`)).trimEnd().split('\n');
    expect(lines[0]).toMatch(/^TARGET +PORTAL +GROUP +URL$/);
    expect(lines.slice(1).map((line) => line.split(/ +/)[3])).toEqual(
      expect.arrayContaining([
        target(),
        `iscsi://127.0.0.1:${tgt.port}/iqn.2024-01.com.example:second`,
      ]),
    );
  });

  it('discover --json prints an array of targets with their portals', async () => {
    const found = await json('discover', 'discover', `127.0.0.1:${tgt.port}`);
    expect(found).toHaveLength(2);
    expect(found).toContainEqual({
      name: tgt.iqn,
      portals: [{ address: '127.0.0.1', port: tgt.port, portalGroupTag: 1 }],
    });
  });

  it('luns lists every LUN with type and size', async () => {
    const luns = await json('luns', 'luns', target());
    expect(luns).toMatchObject([
      { lun: 0, type: 'storage array controller' },
      { lun: 1, type: 'disk', vendor: 'ACME', sizeBytes: 64 * MIB },
      { lun: 2, type: 'disk', sizeBytes: 16 * MIB },
    ]);
    expect(await good('luns', target())).toMatch(/^1 +disk +ACME .* 64\.0 MiB$/m);
  });

  it('capacity agrees with libiscsi, for 512 and 4096-byte blocks', async () => {
    for (const [lun, blockSizeBytes] of [
      [1, 512],
      [2, 4096],
    ] as const) {
      const said = await judge('iscsi-readcapacity16', tgt.url(lun));
      const capacity = await json<Record<string, number>>('capacity', 'capacity', tgt.url(lun));
      expect(capacity).toMatchObject({ lun, blockSizeBytes });
      expect(said).toContain(`Total size:${capacity['sizeBytes']}`);
      expect(said).toContain(`LOGICAL BLOCK LENGTH IN BYTES:${capacity['blockSizeBytes']}`);
    }
  });

  it('capacity shows the size in both forms to people', async () => {
    expect(await good('capacity', tgt.url(1))).toMatch(/^size bytes +67108864 \(64\.0 MiB\)$/m);
  });

  it('inquiry decodes the standard data', async () => {
    const view = await json('inquiry', 'inquiry', tgt.url(1));
    expect(view).toMatchObject({ vendor: 'ACME', product: 'VIRTUAL-DISK', deviceType: 0 });
    expect(await good('inquiry', tgt.url(1))).toMatch(/^vendor +ACME$/m);
  });

  it('inquiry --vpd 83 lists the designators; --vpd 80 shows the serial number', async () => {
    type Page = { page: string; designators: { text: string }[] };
    const page = await json<Page>('inquiry', 'inquiry', tgt.url(1), '--vpd', '83');
    expect(page.page).toBe('83');
    const naa = page.designators.map((each) => each.text);
    expect(naa).toEqual(expect.arrayContaining([expect.stringMatching(/^naa\.[0-9a-f]{16}/)]));
    const flags = ['--vpd', 'serial'];
    const serial = await json<{ serial: string }>('inquiry', 'inquiry', tgt.url(1), ...flags);
    expect(serial.serial.trim()).toBe('serial-1');
    for (const name of ['supported', 'limits', 'provisioning', 'characteristics']) {
      await json('inquiry', 'inquiry', tgt.url(1), '--vpd', name);
    }
  });

  it('the output of --raw has the bytes of the device', async () => {
    // SPC-4 §7.8.15: byte 1 is the page code, bytes 2-3 the length of the serial number.
    const out = await judge(
      'sh',
      '-c',
      `"${process.execPath}" dist/cli/main.js inquiry ${tgt.url(1)} --vpd 80 --raw ` +
        `--initiator-name ${INITIATOR} | od -An -tx1 -v`,
    );
    const bytes = Buffer.from(out.replace(/\s/g, ''), 'hex');
    expect(bytes[1]).toBe(0x80);
    expect(bytes.length).toBe(4 + bytes.readUInt16BE(2));
    expect(bytes.toString('latin1', 4).trim()).toBe('serial-1');
  });

  it('ping measures the requested round trips', async () => {
    const flags = ['--count', '3', '--interval', '0', '--bytes', '64'];
    type Ping = { roundTripsMs: number[]; minMs: number };
    const result = await json<Ping>('ping', 'ping', tgt.url(1), ...flags);
    expect(result).toMatchObject({ count: 3, bytes: 64 });
    expect(result.roundTripsMs).toHaveLength(3);
    expect(result.minMs).toBeGreaterThan(0);
  });

  it('a SIGINT ends a long ping early, with its statistics', async () => {
    await using ping = place.start(['ping', tgt.url(1), '--count', '1000', '--interval', '0.05']);
    await ping.lines(2);
    ping.kill('SIGINT');
    const { code, out } = await ping.result;
    expect(out).toMatch(/^\d+ round trips$/m);
    expect(code).toBe(0);
  });

  it('a reader of the output that ends early is not an error', async () => {
    const out = await judge(
      'bash',
      '-c',
      `"${process.execPath}" dist/cli/main.js luns ${target()} ` +
        `--initiator-name ${INITIATOR} 2>&1 > >(exec true); echo "$?"`,
    );
    expect(out).toBe('0\n');
  });

  it('the commands leave no session at the target and no file on this machine', async () => {
    const sessions = await tgt.adm(
      '--lld',
      'iscsi',
      '--mode',
      'conn',
      '--op',
      'show',
      '--tid',
      '1',
    );
    expect(sessions.trim()).toBe('');
    expect(await place.content()).toEqual([]);
  });
});
