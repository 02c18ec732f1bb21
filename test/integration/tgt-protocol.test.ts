import { describe, expect, test } from 'vitest';
import type { SessionOptions } from '../../src/config/contract.js';
import { exitCodeOf } from '../../src/errors/exit-codes.js';
import { discover } from '../../src/session/discovery-session.js';
import { InProcessDisk, SESSION_OPTIONS } from '../helpers/in-process.js';
import { startTgt, type TgtOptions } from '../helpers/tgt.js';

const MIB = 1 << 20;
const LUN = { sizeBytes: 8 * MIB };
const SECRET = 'initiator-secret';
const TARGET_SECRET = 'another-secret-1';
const CHAP = { user: 'alice', secret: SECRET };
const MUTUAL = { ...CHAP, target: { user: 'bob', secret: TARGET_SECRET } };
const TGT_CHAP = { user: 'alice', password: SECRET };
const TGT_MUTUAL = { ...TGT_CHAP, targetUser: 'bob', targetPassword: TARGET_SECRET };

/** Starts tgt and a session to its first LUN; the disk is verified. */
async function verified(tgtOptions: Partial<TgtOptions>, options: Partial<SessionOptions>) {
  await using tgt = await startTgt({ luns: [LUN], ...tgtOptions });
  const url = { port: tgt.port, targetName: tgt.iqn, lun: 1 };
  await using disk = await InProcessDisk.start(url, options);
  await disk.verify();
  return disk.events;
}

/** The exit code that the refusal of the login ends in. */
async function exitCode(tgtOptions: Partial<TgtOptions>, options: Partial<SessionOptions>) {
  await using tgt = await startTgt({ luns: [LUN], ...tgtOptions });
  const url = { port: tgt.port, targetName: tgt.iqn, lun: 1 };
  const error = await InProcessDisk.start(url, options).then(
    () => new Error('the login succeeded'),
    (reason: unknown) => reason,
  );
  return { code: exitCodeOf(error), message: String(error) };
}

describe('RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)) with tgt', () => {
  test('the initiator authenticates itself, with the algorithms offered by default', async () => {
    await verified({ chap: TGT_CHAP }, { chap: CHAP });
  });

  test.each(['MD5', 'SHA1'] as const)(
    'the initiator authenticates itself with %s as the first algorithm',
    async (algorithm) => {
      await verified({ chap: TGT_CHAP }, { chap: CHAP, chapAlgorithms: [algorithm, 'MD5'] });
    },
  );

  test('both sides authenticate each other', async () => {
    await verified({ chap: TGT_MUTUAL }, { chap: MUTUAL });
  });

  test('a session comes back after a restart of the target, with mutual CHAP again', async () => {
    await using tgt = await startTgt({ luns: [LUN], chap: TGT_MUTUAL });
    const url = { port: tgt.port, targetName: tgt.iqn, lun: 1 };
    await using disk = await InProcessDisk.start(url, { chap: MUTUAL });
    await tgt.restart();
    await disk.heard((event) => event.event === 'deviceReleased');
    await disk.verify();
  });

  test('a wrong secret is exit code 24 and status 0201', async () => {
    const wrong = { user: 'alice', secret: 'not-the-secret-1' };
    const { code, message } = await exitCode({ chap: TGT_CHAP }, { chap: wrong });
    expect(code).toBe(24);
    expect(message).toContain('0201');
  });

  test('missing credentials are exit code 24 if the target requires them', async () => {
    expect((await exitCode({ chap: TGT_CHAP }, {})).code).toBe(24);
  });

  test('a target that does not prove itself is exit code 24', async () => {
    const other = { ...MUTUAL, target: { user: 'bob', secret: 'not-its-secret-1' } };
    expect((await exitCode({ chap: TGT_MUTUAL }, { chap: other })).code).toBe(24);
    expect((await exitCode({ chap: TGT_CHAP }, { chap: MUTUAL })).code).toBe(24);
  });
});

describe('RFC 7143 §13.1 (HeaderDigest and DataDigest) with tgt', () => {
  const digests = [
    ['CRC32C', 'None'],
    ['None', 'CRC32C'],
    ['CRC32C', 'CRC32C'],
  ] as const;

  test.each(digests)(
    'the digests HeaderDigest=%s DataDigest=%s are in force if required',
    async (header, data) => {
      const keys = { HeaderDigest: 'None,CRC32C', DataDigest: 'None,CRC32C' };
      await verified({ keys }, { headerDigest: [header], dataDigest: [data] });
    },
  );

  test('a digest that is preferred and refused is not used', async () => {
    const keys = { HeaderDigest: 'None', DataDigest: 'None' };
    const preferred = ['CRC32C', 'None'] as const;
    await verified({ keys }, { headerDigest: preferred, dataDigest: preferred });
  });

  test('a digest that is required and refused is exit code 5', async () => {
    const keys = { HeaderDigest: 'None' };
    expect((await exitCode({ keys }, { headerDigest: ['CRC32C'] })).code).toBe(5);
  });
});

describe('RFC 7143 §4.2.5.2 (Data Transfer Overview) with tgt', () => {
  const yesNo = [true, false];
  const ways = yesNo.flatMap((initialR2T) =>
    yesNo.map((immediateData) => ({ initialR2T, immediateData })),
  );

  test.each(ways)(
    'data of both directions are right with InitialR2T=$initialR2T ImmediateData=$immediateData',
    async (way) => {
      const keys = { InitialR2T: 'No', ImmediateData: 'Yes', MaxOutstandingR2T: 8 };
      await verified({ keys }, way);
    },
  );

  test('data are right with the smallest MaxRecvDataSegmentLength and bursts', async () => {
    const keys = { InitialR2T: 'No', MaxRecvDataSegmentLength: 512 };
    await verified(
      { keys },
      { maxRecvDataSegmentLength: 512, maxBurstLength: 4096, firstBurstLength: 1024 },
    );
  });

  test('data are right with large segments and bursts', async () => {
    const keys = { InitialR2T: 'No', MaxRecvDataSegmentLength: 262144, MaxBurstLength: 1048576 };
    await verified(
      { keys },
      { maxRecvDataSegmentLength: 1048576, maxBurstLength: 1048576, firstBurstLength: 262144 },
    );
  });
});

describe('several LUNs, targets and discovery with tgt', () => {
  test('each LUN and each target keeps its own bytes', async () => {
    const other = { luns: [LUN, LUN], iqn: 'iqn.2024-01.com.example:other' };
    await using tgt = await startTgt({ luns: [LUN, LUN], targets: [other] });
    for (const targetName of [tgt.iqn, other.iqn]) {
      await using disk = await InProcessDisk.start({ port: tgt.port, targetName, lun: null });
      await Promise.all([disk.verify('1'), disk.verify('2')]);
    }
  });

  test('RFC 7143 Appendix C (SendTargets Operation): discovery lists all targets', async () => {
    const targets = Array.from({ length: 60 }, (_, index) => ({
      luns: [],
      iqn: `iqn.2024-01.com.example:a-name-that-makes-the-answer-long.${index}`,
    }));
    await using tgt = await startTgt({ luns: [LUN], targets });
    const portal = { host: '127.0.0.1', port: tgt.port };
    const found = await discover(portal, SESSION_OPTIONS, AbortSignal.timeout(20_000));
    const names = [tgt.iqn, ...targets.map((target) => target.iqn)];
    expect(found.map((target) => target.name).sort()).toEqual(names.sort());
    const portals = found.flatMap((target) => target.portals);
    expect(new Set(portals.map((one) => one.port))).toEqual(new Set([tgt.port]));
  });

  test('discovery authenticates itself if tgt requires it', async () => {
    await using tgt = await startTgt({ luns: [LUN] });
    const account = ['--lld', 'iscsi', '--mode', 'account'];
    await tgt.adm(...account, '--op', 'new', '--user', 'alice', '--password', SECRET);
    // Without a target the account is that of discovery.
    await tgt.adm(...account, '--op', 'bind', '--user', 'alice');
    const portal = { host: '127.0.0.1', port: tgt.port };
    const as = (chap: SessionOptions['chap']) =>
      discover(
        portal,
        { ...SESSION_OPTIONS, ...(chap === undefined ? {} : { chap }) },
        AbortSignal.timeout(20_000),
      );
    expect((await as(CHAP)).map((target) => target.name)).toEqual([tgt.iqn]);
    const wrong = { user: 'alice', secret: 'not-the-secret-1' };
    expect(exitCodeOf(await as(wrong).catch((reason: unknown) => reason))).toBe(24);
    expect(exitCodeOf(await as(undefined).catch((reason: unknown) => reason))).toBe(24);
  });

  test('a name that does not exist is refused for good: exit code 19, status 0203', async () => {
    await using tgt = await startTgt({ luns: [LUN] });
    const url = { port: tgt.port, targetName: 'iqn.2024-01.com.example:none', lun: 1 };
    const error: unknown = await InProcessDisk.start(url).catch((reason) => reason);
    expect(exitCodeOf(error)).toBe(19);
    expect(String(error)).toContain('0203');
  });
});
