import { Workplace } from '../helpers/command-process.js';
import { startIstgt } from '../helpers/istgt.js';
import { DISK_MIB, describeRows, type RowStart } from '../helpers/target-rows.js';
import { startTgt } from '../helpers/tgt.js';

const tgt: RowStart = async ({ chap, digests }) => {
  const place = await Workplace.make();
  const file = place.file('disk.img');
  const keys = digests ? { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' } : {};
  const started = await startTgt({
    luns: [{ file, sizeBytes: DISK_MIB << 20 }],
    keys,
    ...(chap === undefined ? {} : { chap }),
  });
  return {
    portal: `127.0.0.1:${started.port}`,
    iqn: started.iqn,
    lun: 1,
    url: started.url().replace(/\/1$/, ''),
    file,
    stop: () => started.kill(),
    start: () => started.restart(),
    [Symbol.asyncDispose]: async () => {
      await started.stop();
      await place[Symbol.asyncDispose]();
    },
  };
};

const istgt: RowStart = async ({ chap, digests }) => {
  const way = chap?.targetUser === undefined ? 'CHAP' : 'CHAP Mutual';
  const started = await startIstgt({
    lunsMiB: [DISK_MIB],
    unit: {
      ...(chap === undefined ? {} : { AuthMethod: way }),
      ...(digests ? { UseDigest: 'Header Data' } : {}),
    },
    ...(chap === undefined ? {} : { chap }),
  });
  return {
    portal: started.portal,
    iqn: started.iqn,
    lun: 0,
    url: started.url().replace(/\/0$/, ''),
    file: started.file(),
    stop: (how) => started.kill(how === 'SIGTERM' ? 'SIGTERM' : 'SIGKILL'),
    start: () => started.start(),
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  };
};

// A tgtd with targets ignores SIGTERM.
describeRows('tgt as it is by default', tgt, ['SIGKILL']);
describeRows('istgt as its package configures it', istgt, ['SIGKILL', 'SIGTERM']);
