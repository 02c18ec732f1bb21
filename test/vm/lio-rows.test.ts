import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DISK_MIB, describeRows, type RowStart } from '../helpers/target-rows.js';
import { startLio } from './lio.js';
import { MIB } from './targets.js';

const PORTAL = '127.0.0.1:3272';
const IQN = 'iqn.2003-01.org.linux-iscsi:rows';

const lio: RowStart = async ({ chap, digests }) => {
  const folder = await mkdtemp(join(tmpdir(), 'lio-rows-'));
  const file = join(folder, 'disk');
  const started = await startLio({
    file,
    sizeBytes: DISK_MIB * MIB,
    iqn: IQN,
    portals: [PORTAL],
    keys: digests ? { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' } : {},
    ...(chap === undefined ? {} : { chap }),
  });
  return {
    portal: PORTAL,
    iqn: IQN,
    lun: 0,
    url: `iscsi://${PORTAL}/${IQN}`,
    file,
    stop: () => started.enable(false),
    start: () => started.enable(true),
    [Symbol.asyncDispose]: async () => {
      await started[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
};

describeRows('LIO, the Linux kernel target', lio, ['disabling its portal group'], {
  isInVm: true,
});
