import { describe, expect, test, vi } from 'vitest';
import type { SessionOptions } from '../../src/config/contract.js';
import { exitCodeOf } from '../../src/errors/exit-codes.js';
import { discover } from '../../src/session/discovery-session.js';
import { errorsIn, fioVerifyPaced } from '../helpers/fio.js';
import { InProcessDisk, SESSION_OPTIONS } from '../helpers/in-process.js';
import { type Istgt, type IstgtOptions, startIstgt } from '../helpers/istgt.js';

const SECRET = 'initiator-secret';
const TARGET_SECRET = 'another-secret-1';
const CHAP = { user: 'alice', secret: SECRET };
const MUTUAL = { ...CHAP, target: { user: 'bob', secret: TARGET_SECRET } };
const ACCOUNT = { user: 'alice', password: SECRET };
const DIGESTS = { headerDigest: ['CRC32C'], dataDigest: ['CRC32C'] } as const;
const MUTUAL_ACCOUNT = { ...ACCOUNT, targetUser: 'bob', targetPassword: TARGET_SECRET };

/** The machine of a test may be busy; nothing here is about speed. */
vi.setConfig({ testTimeout: 120_000 });

function open(istgt: Istgt, options: Partial<SessionOptions>, lun: number | null = 0) {
  return InProcessDisk.start({ port: istgt.port, targetName: istgt.iqn, lun }, options);
}

/** The exit code that the refusal of the login ends in. */
async function exitCode(istgtOptions: IstgtOptions, options: Partial<SessionOptions>) {
  await using istgt = await startIstgt(istgtOptions);
  const error = await open(istgt, options).then(
    () => new Error('the login succeeded'),
    (reason: unknown) => reason,
  );
  return exitCodeOf(error);
}

/** The quirks that the session told of. */
function quirksOf(disk: InProcessDisk): string[] {
  return disk.events.flatMap((event) => (event.event === 'targetQuirk' ? [event.quirk] : []));
}

async function namesFound(istgt: Istgt, options: Partial<SessionOptions>): Promise<string[]> {
  const portal = { host: '127.0.0.1', port: istgt.port };
  const signal = AbortSignal.timeout(20_000);
  const found = await discover(portal, { ...SESSION_OPTIONS, ...options }, signal);
  return found.map((target) => target.name);
}

describe('RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)) with istgt', () => {
  const wrong = { user: 'alice', secret: 'not-the-secret-1' };
  const otherTarget = { ...MUTUAL, target: { user: 'bob', secret: 'not-its-secret-1' } };

  test.each([
    ['a wrong secret', { AuthMethod: 'CHAP' }, { chap: wrong }],
    ['a missing secret', { AuthMethod: 'CHAP' }, {}],
    [
      'one-way CHAP to a target that asks for mutual CHAP',
      { AuthMethod: 'CHAP Mutual' },
      { chap: CHAP },
    ],
    ['a target that does not prove itself', { AuthMethod: 'CHAP Mutual' }, { chap: otherTarget }],
  ])('%s is exit code 24', async (_name, unit, options) => {
    expect(await exitCode({ unit, chap: MUTUAL_ACCOUNT }, options)).toBe(24);
  });

  test.each([
    ['one-way CHAP', 'CHAP', CHAP],
    ['mutual CHAP', 'CHAP Mutual', MUTUAL],
  ])('discovery authenticates itself with %s if istgt requires it', async (_name, method, chap) => {
    const global = { DiscoveryAuthMethod: method, DiscoveryAuthGroup: 'AuthGroup1' };
    await using istgt = await startIstgt({ global, chap: MUTUAL_ACCOUNT });
    expect(await namesFound(istgt, { chap })).toEqual([istgt.iqn]);
    const refused = (options: Partial<SessionOptions>) =>
      namesFound(istgt, options).catch((reason: unknown) => exitCodeOf(reason));
    expect(await refused({ chap: wrong })).toBe(24);
    expect(await refused({})).toBe(24);
  });
});

test('each LUN of istgt keeps its own bytes', async () => {
  await using istgt = await startIstgt({ lunsMiB: [16, 8] });
  await using disk = await open(istgt, {}, null);
  await Promise.all([disk.verify('0'), disk.verify('1')]);
});

test('the bytes of an istgt disk with blocks of 4096 bytes are right', async () => {
  await using istgt = await startIstgt({ unit: { BlockLength: 4096 } });
  await using disk = await open(istgt, {});
  await disk.verify();
});

test('the bytes of an istgt disk are right if every write waits for an R2T', async () => {
  await using istgt = await startIstgt();
  await using disk = await open(istgt, { initialR2T: true, immediateData: false });
  await disk.verify();
});

describe('istgt without command queuing (QueueDepth 0)', () => {
  test.each([
    ['no digest', {}, {}],
    ['both digests', { UseDigest: 'Header Data' }, DIGESTS],
  ])(
    'fio verifies what it wrote with %s, and no connection breaks',
    async (_name, unit, options) => {
      await using istgt = await startIstgt({ unit: { QueueDepth: 0, ...unit } });
      await using disk = await open(istgt, options);
      expect(errorsIn(await fioVerifyPaced(disk.uri))).toEqual(['0']);
      expect(disk.events.map((event) => event.event)).toEqual(['sessionState']);
    },
  );

  test('two LUNs of one session are verified, and istgt mixes up its responses no more', async () => {
    const unit = { QueueDepth: 0, UseDigest: 'Header Data' };
    await using istgt = await startIstgt({ lunsMiB: [32, 32], unit });
    await using disk = await open(istgt, DIGESTS, null);
    const outputs = await Promise.all(['0', '1'].map((lun) => fioVerifyPaced(disk.uriOf(lun))));
    expect(outputs.flatMap(errorsIn)).toEqual(['0', '0']);
    // What was in flight when a response came out of order may have been mixed up, too.
    const breaks = disk.events.filter(
      (event) => event.event === 'sessionState' && event.to === 'reconnecting',
    );
    expect(breaks.length).toBeLessThanOrEqual(1);
  });
});

describe('istgt as its users configure it', () => {
  test('the digests that istgt insists on are used though they were not requested', async () => {
    await using istgt = await startIstgt({ unit: { UseDigest: 'Header Data' } });
    await using disk = await open(istgt, {});
    await disk.verify();
    expect(quirksOf(disk)).toEqual(['digest-none-refused']);
  });

  test('discovery with a CHAP secret gets on with an istgt that has no account for discovery', async () => {
    await using istgt = await startIstgt({ unit: { AuthMethod: 'CHAP' }, chap: ACCOUNT });
    expect(await namesFound(istgt, { chap: CHAP })).toEqual([istgt.iqn]);
  });

  test('the session with an istgt without accounts gets on with CHAP offered', async () => {
    await using istgt = await startIstgt();
    await using disk = await open(istgt, { chap: CHAP });
    await disk.verify();
    expect(quirksOf(disk)).toEqual(['chap-unwanted']);
  });
});
