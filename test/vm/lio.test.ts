import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Attached, attach, cleanUp, shell } from './attached.js';
import { startLio } from './lio.js';
import { MIB } from './targets.js';

const IQN = 'iqn.2003-01.org.linux-iscsi:vm';
const SIZE = 4 * MIB;
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lio-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

/** Random bytes in requests of many sizes, read back and compared, and with the backing file. */
async function verify(attached: Attached, file: string): Promise<void> {
  const { device } = attached;
  await shell(`
    dd if=/dev/urandom of=${folder}/bytes bs=1M count=4 status=none
    for bs in 512 4k 60k 256k 1M; do
      count=$(( $(numfmt --from=iec 4M) / $(numfmt --from=iec \${bs^^}) )); test $count -le 128 || count=128
      dd if=${folder}/bytes of=${device} bs=$bs count=$count oflag=direct status=none
    done
    dd if=${folder}/bytes of=${device} bs=1M count=4 oflag=direct conv=fsync status=none
    dd if=${device} bs=60k iflag=direct status=none | cmp - ${folder}/bytes
    sync ${file}; cmp ${file} ${folder}/bytes
  `);
  expect(attached.events.some((event) => event.event === 'ioError')).toBe(false);
  expect(await attached.end('SIGTERM')).toBe(0);
}

const PORTAL = '127.0.0.1:3270';
const OTHER_PORTAL = '127.0.0.1:3271';
const URL = `iscsi://${PORTAL}/${IQN}/0`;

describe('LIO, the Linux kernel target', () => {
  it('writes are verified with mutual CHAP and CRC32C digests of headers and data', async () => {
    const file = join(folder, 'disk');
    const chap = {
      user: 'us',
      password: 'a-secret-of-ours',
      targetUser: 'it',
      targetPassword: 'a-secret-of-its',
    };
    await using _lio = await startLio({
      file,
      sizeBytes: SIZE,
      iqn: IQN,
      portals: [PORTAL],
      chap,
      keys: { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' },
    });
    await writeFile(`${folder}/ours`, chap.password, { mode: 0o600 });
    await writeFile(`${folder}/its`, chap.targetPassword, { mode: 0o600 });
    const flags = ['--chap-user', chap.user, '--chap-secret-file', `${folder}/ours`];
    flags.push('--target-chap-user', chap.targetUser, '--target-chap-secret-file', `${folder}/its`);
    flags.push('--header-digest', 'CRC32C', '--data-digest', 'CRC32C');
    await verify(await attach(URL, flags), file);
  });

  it.each([
    ['InitialR2T=Yes, ImmediateData=No', { InitialR2T: 'Yes', ImmediateData: 'No' }],
    ['InitialR2T=No, ImmediateData=Yes', { InitialR2T: 'No', ImmediateData: 'Yes' }],
    ['InitialR2T=No, ImmediateData=No', { InitialR2T: 'No', ImmediateData: 'No' }],
  ])('writes are verified with %s', async (_name, keys) => {
    const file = join(folder, 'disk');
    await using _lio = await startLio({ file, sizeBytes: SIZE, iqn: IQN, portals: [PORTAL], keys });
    await verify(await attach(URL), file);
  });

  it('writes are verified with segments of 512 bytes in both directions', async () => {
    const file = join(folder, 'disk');
    await using _lio = await startLio({
      file,
      sizeBytes: SIZE,
      iqn: IQN,
      portals: [PORTAL],
      keys: { MaxRecvDataSegmentLength: '512', MaxBurstLength: '65536', FirstBurstLength: '4096' },
    });
    await verify(await attach(URL, ['--max-recv-data-segment-length', '512']), file);
  });

  it.each(['auto', 'off'])(
    'writes are verified over the other portal when the first one is disabled, with multipath %s',
    async (multipath) => {
      const file = join(folder, 'disk');
      const portals = [PORTAL, OTHER_PORTAL];
      await using lio = await startLio({ file, sizeBytes: SIZE, iqn: IQN, portals });
      const flags = ['--portals', OTHER_PORTAL, '--reconnect-interval', '1'];
      const attached = await attach(URL, [...flags, '--multipath', multipath]);
      await lio.enable(false);
      await attached.waitFor('sessionState', { to: 'reconnecting' });
      await lio.removePortal(PORTAL);
      await lio.enable(true);
      // Of several paths each keeps to its portal.
      if (multipath === 'off') await attached.waitFor('portalChanged', { to: OTHER_PORTAL });
      await verify(attached, file);
    },
  );
});
