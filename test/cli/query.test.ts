import { describe, expect, it, vi } from 'vitest';
import { LinkError, LoginRefusedError, ProductError } from '../../src/base/errors.js';
import type { SessionOptions } from '../../src/config/contract.js';
import { check, fakeSession, good, NAME, run, URL_LUN0 } from './fake-io.js';

// A standard INQUIRY answer laid out by hand after SPC-4: disk, SPC-3, 36 bytes.
const INQUIRY = good(
  '00 00 05 02 1f 00 00 02 49 45 54 20 20 20 20 20' +
    '56 49 52 54 55 41 4c 2d 44 49 53 4b 20 20 20 20 30 30 30 31',
);
// READ CAPACITY(16) by hand after SBC-3: last block 1fffffh, 512 bytes, 8 per physical block, LBPME.
const CAPACITY_16 = good('00000000001fffff 00000200 00 03 8000 00000000000000000000000000000000');
const CAPACITY_10 = good('001fffff 00000200');
const TWO_LUNS = good('00000010 00000000 0000000000000000 0001000000000000');

describe('discover', () => {
  const targets = [
    {
      name: NAME,
      portals: [
        { host: '192.0.2.1', port: 3260, portalGroupTag: 1 },
        { host: '2001:db8::1', port: 3261 },
      ],
    },
  ];

  it('discover --json prints JSON of a stable shape', async () => {
    const { code, out } = await run(['discover', '192.0.2.1', '--json'], {
      discover: async () => targets,
    });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual([
      {
        name: NAME,
        portals: [
          { address: '192.0.2.1', port: 3260, portalGroupTag: 1 },
          { address: '2001:db8::1', port: 3261, portalGroupTag: null },
        ],
      },
    ]);
  });

  it('discover prints a line per portal for people, with a URL for the next command', async () => {
    const { out } = await run(['discover', 'h'], { discover: async () => targets });
    const lines = out.trimEnd().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[0]).toMatch(/^TARGET +PORTAL +GROUP +URL$/);
    expect(lines[2]).toContain(`iscsi://[2001:db8::1]:3261/${NAME}`);
  });

  it('discover passes portal, options and credentials on', async () => {
    let seen: SessionOptions | undefined;
    let portal: unknown;
    await run(
      ['discover', 'me@[::1]:1', '--login-timeout', '3'],
      {
        discover: async (address, options) => {
          portal = address;
          seen = options;
          return targets;
        },
      },
      { LIBISCSI_CHAP_PASSWORD: 'hunter2' },
    );
    expect(portal).toEqual({ host: '::1', port: 1 });
    expect(seen).toMatchObject({
      loginTimeoutSeconds: 3,
      initiatorName: 'iqn.2001-04.com.example:me',
      chap: { user: 'me', secret: 'hunter2' },
    });
    expect(seen).not.toHaveProperty('chapSecretFile');
  });

  it('discover exits with 21 if there is no target', async () => {
    const { code, out, err } = await run(['discover', 'h', '--json'], { discover: async () => [] });
    expect(code).toBe(21);
    expect(JSON.parse(out)).toEqual([]);
    expect(JSON.parse(err)).toMatchObject({ event: 'error', exitCode: 21, portal: 'h' });
  });
});

describe('a failed command', () => {
  const failing = (error: Error) => ({
    openInformational: async () => {
      throw error;
    },
  });

  it('the error is one paragraph: what failed, where, why and what to do next', async () => {
    const error = new LinkError('ECONNREFUSED', 'no connection (ECONNREFUSED)');
    const { code, out, err } = await run(['capacity', URL_LUN0], failing(error));
    expect(code).toBe(4);
    expect(out).toBe('');
    expect(err).toBe(
      'iscsi-nbd: No connection (ECONNREFUSED): the host responds, but nothing listens on this port ' +
        `(LUN 0, target ${NAME}, portal 192.0.2.1). ` +
        'Check the address and port, the firewall, and that the target is running.\n',
    );
  });

  it('the error is one object on standard error with --json', async () => {
    const error = new LinkError('ETIMEDOUT', 'no answer');
    const { code, err } = await run(['capacity', URL_LUN0, '--json'], failing(error));
    expect(code).toBe(8);
    expect(JSON.parse(err)).toMatchObject({
      event: 'error',
      code: 'ERR_LINK',
      exitCode: 8,
      portal: '192.0.2.1',
      target: NAME,
      lun: 0,
    });
  });

  it('RFC 7143 §11.13.5: the error explains the status of a refused login', async () => {
    const error = new LoginRefusedError('no', { statusClass: 2, statusDetail: 3 });
    const { code, err } = await run(['luns', URL_LUN0], failing(error));
    expect(code).toBe(19);
    expect(err).toMatch(/status 0203 Not found: .*\. Compare the name with/);
  });

  it('the command exits with 24 if the target failed to authenticate itself', async () => {
    const error = new ProductError('ERR_AUTHENTICATION', 'the target failed to prove itself');
    expect((await run(['luns', URL_LUN0], failing(error))).code).toBe(24);
  });
});

describe('capacity', () => {
  it('capacity --json prints JSON of a stable shape', async () => {
    const fake = fakeSession({ '9e10': CAPACITY_16 });
    const { code, out } = await run(['capacity', URL_LUN0, '--json'], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual({
      lun: 0,
      blockCount: 2_097_152,
      blockSizeBytes: 512,
      sizeBytes: 1_073_741_824,
      physicalBlockSizeBytes: 4096,
      lowestAlignedBlock: 0,
      protectionType: 0,
      thinProvisioned: true,
      unmappedReadsZero: false,
    });
    expect(fake.closed()).toBe(true);
  });

  it('capacity prints a size that people can read', async () => {
    const fake = fakeSession({ '9e10': CAPACITY_16 });
    const { out } = await run(['capacity', URL_LUN0], {
      openInformational: async () => fake.session,
    });
    expect(out).toMatch(/^size bytes +1073741824 \(1\.0 GiB\)$/m);
  });

  it('capacity repeats its command after unit attentions, and falls back to READ CAPACITY(10)', async () => {
    const fake = fakeSession({
      '9e10': [check(6, 0x29, 0), check(6, 0x3f, 0x0e), check(5, 0x20, 0)],
      '25': CAPACITY_10,
    });
    const { code, out } = await run(['capacity', `iscsi://h/${NAME}/5`, '--json'], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ lun: 5, blockCount: 2_097_152 });
    expect(fake.requests.map((request) => request.lun)).toEqual([5, 5, 5, 5]);
  });

  it('capacity reports the sense of an error in words, and closes the session', async () => {
    const fake = fakeSession({ '9e10': check(2, 0x3a, 0) });
    const { code, err } = await run(['capacity', URL_LUN0], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(1);
    expect(err).toMatch(/NOT READY: there is no medium \(02h\/3Ah\/00h\)/);
    expect(fake.closed()).toBe(true);
  });

  it('capacity of a LUN that does not exist says how to list those that do', async () => {
    const fake = fakeSession({ '9e10': check(5, 0x25, 0) });
    const { code, err } = await run(['capacity', URL_LUN0], {
      openInformational: async () => fake.session,
    });
    expect(err).toMatch(/no such logical unit .*`iscsi-nbd luns` lists/);
    expect(code).toBe(21);
  });

  it('capacity ends after a bounded number of attempts', async () => {
    const fake = fakeSession({ '9e10': check(6, 0x29, 0) });
    const { code } = await run(['capacity', URL_LUN0], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(1);
    expect(fake.requests.length).toBeLessThan(20);
  });

  it('capacity --raw writes the bytes and nothing else', async () => {
    const fake = fakeSession({ '9e10': good('0000000000000001 00000200 4141414142424242') });
    const { out } = await run(['capacity', URL_LUN0, '--raw'], {
      openInformational: async () => fake.session,
    });
    expect(Buffer.from(out, 'latin1').toString('hex')).toBe(
      '00000000000000010000020041414141' + '42424242',
    );
  });
});

describe('inquiry', () => {
  it('inquiry decodes the standard data', async () => {
    const fake = fakeSession({ '1200': INQUIRY });
    const { out } = await run(['inquiry', URL_LUN0, '--json'], {
      openInformational: async () => fake.session,
    });
    expect(JSON.parse(out)).toMatchObject({
      vendor: 'IET',
      product: 'VIRTUAL-DISK',
      deviceType: 0,
    });
  });

  it('an error of a target reaches the terminal without what could move its cursor', async () => {
    const { code, err } = await run(['inquiry', URL_LUN0], {
      openInformational: async () => {
        throw new ProductError('ERR_TEST', 'it said \u001b[2J\u0007 and\nmore');
      },
    });
    expect([code, err]).toEqual([1, expect.stringContaining('it said ?[2J? and\nmore')]);
  });

  it.each(['80', '0x80', '80h', 'serial'])('inquiry --vpd %s requests page 80h', async (page) => {
    const fake = fakeSession({ '120180': good('00 80 0004 41424344') });
    const { out } = await run(['inquiry', URL_LUN0, '--vpd', page, '--json'], {
      openInformational: async () => fake.session,
    });
    expect(JSON.parse(out)).toMatchObject({ page: '80', serial: 'ABCD' });
  });

  it('inquiry of a LUN that does not exist exits with 21; --raw still writes the bytes', async () => {
    // Qualifier 011b, type 1Fh: SPC-4 §6.6.2.
    const nobody = good(`7f 00 05 02 1f ${'00'.repeat(31)}`);
    const backend = () => ({
      openInformational: async () => fakeSession({ '1200': nobody }).session,
    });
    const { code, out, err } = await run(['inquiry', URL_LUN0], backend());
    expect(err).toMatch(/has no LUN 0 .*`iscsi-nbd luns` lists/);
    expect(out).toBe('');
    expect(code).toBe(21);
    expect((await run(['inquiry', URL_LUN0, '--raw'], backend())).code).toBe(0);
  });

  it('inquiry names a page that the LUN does not have, and how to list its pages', async () => {
    const fake = fakeSession({ '120199': check(5, 0x24, 0) });
    const { code, err } = await run(['inquiry', URL_LUN0, '--vpd', '99'], {
      openInformational: async () => fake.session,
    });
    expect(err).toMatch(/LUN 0 has no VPD page 99h\. `--vpd supported`/);
    expect(code).toBe(21);
  });

  it('inquiry rejects an invalid page name before it connects', async () => {
    const inherited = await run(['inquiry', URL_LUN0, '--vpd', 'constructor']);
    expect(inherited.err).toMatch(/--vpd 'constructor' is no page/);
    const { code, err } = await run(['inquiry', URL_LUN0, '--vpd', 'zz']);
    expect(code).toBe(7);
    expect(err).toMatch(/--vpd 'zz' is no page/);
  });
});

describe('luns', () => {
  it('luns lists each LUN; one that fails does not hide the others', async () => {
    const fake = fakeSession({
      a000: TWO_LUNS,
      '1200': [INQUIRY, INQUIRY],
      '9e10': [CAPACITY_16, check(2, 0x3a, 0)],
    });
    const { code, out } = await run(['luns', `iscsi://h/${NAME}`, '--json'], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual([
      { lun: 0, type: 'disk', vendor: 'IET', product: 'VIRTUAL-DISK', sizeBytes: 1_073_741_824 },
      {
        lun: 1,
        type: 'disk',
        vendor: 'IET',
        product: 'VIRTUAL-DISK',
        error: expect.stringContaining('no medium'),
      },
    ]);
  });

  it('capacity waits for a disk that takes ten answers of 02/04/01 to become ready', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'performance'] });
    try {
      const notReady = Array.from({ length: 10 }, () => check(2, 0x04, 0x01));
      const fake = fakeSession({ '9e10': [...notReady, CAPACITY_16] });
      const running = run(['capacity', URL_LUN0, '--json'], {
        openInformational: async () => fake.session,
      });
      await vi.advanceTimersByTimeAsync(6_000);
      expect((await running).code).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('luns fails as a whole when the connection does', async () => {
    const fake = fakeSession({ a000: TWO_LUNS });
    fake.session.execute = async (request) => {
      if (request.cdb[0] === 0xa0) return TWO_LUNS;
      throw new LinkError('ECONNRESET', 'gone');
    };
    const { code } = await run(['luns', `iscsi://h/${NAME}`], {
      openInformational: async () => fake.session,
    });
    expect(code).toBe(4);
  });
});

describe('ping', () => {
  it('ping prints statistics', async () => {
    const fake = fakeSession({});
    const times = [1, 2, 3, 10];
    fake.session.ping = async () => times.shift() ?? 0;
    const { code, out } = await run(
      ['ping', URL_LUN0, '--count', '4', '--interval', '0', '--json'],
      { openInformational: async () => fake.session },
    );
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      count: 4,
      bytes: 32,
      minMs: 1,
      averageMs: 4,
      medianMs: 2,
      p99Ms: 10,
      maxMs: 10,
      roundTripsMs: [1, 2, 3, 10],
    });
  });

  it.each([
    ['--count', '0'],
    ['--count', 'x'],
    ['--bytes', '5000'],
    ['--interval', '-1'],
  ])('ping rejects %s %s', async (flag, value) => {
    expect((await run(['ping', URL_LUN0, `${flag}=${value}`])).code).toBe(7);
  });
});
