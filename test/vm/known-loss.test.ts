/**
 * A disk that says, to a read, that it has lost its cache, and never says it again: the next fsync
 * fails, by any process that serves the device then. The embedded target, because tgt says so at each login.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { type Attached, attach, cleanUp, run } from './attached.js';

const NAME = 'iqn.2024-01.com.example:forgetful';
const POWER_ON = { asc: 0x29, ascq: 0x00 };

afterEach(() => cleanUp());

/** Its errno's name, or `none`. */
async function fsync(device: string): Promise<string> {
  const script = [
    'import errno, os, sys',
    'fd = os.open(sys.argv[1], os.O_RDWR)',
    'try:',
    '  os.fsync(fd)',
    "  print('none')",
    'except OSError as error:',
    '  print(errno.errorcode[error.errno])',
  ];
  return (await run('python3', '-c', script.join('\n'), device)).trim();
}

describe('a loss of acknowledged writes that was reported to no client', () => {
  it.each([
    ['served by the same process', async () => undefined, []],
    [
      'handed over to another process',
      (attached: Attached) => attached.end('SIGTERM'),
      ['--keep-devices'],
    ],
    ['taken over after a kill -9', (attached: Attached) => attached.end('SIGKILL'), []],
  ] as const)(
    'the next fsync of a device that is %s fails, and only that',
    {
      timeout: 300_000,
    },
    async (_how, end, flags) => {
      const disk = TargetDisk.ram({ sizeBytes: 8 << 20, writeCache: 'volatile' });
      const node = new TargetNode({ targets: [{ name: NAME, luns: { 0: disk } }] });
      const server = await startTargetServer(node);
      try {
        const url = `iscsi://127.0.0.1:${server.port}/${NAME}/0`;
        const all = [...flags, '--retain-writes', 'never'];
        const first = await attach(url, all);
        const { device } = first;
        await run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=64k', 'count=1', 'oflag=direct');
        disk.powerLoss();
        node.raiseAttention(NAME, 0, POWER_ON);
        await run('dd', `if=${device}`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct');
        const isSame = (await end(first)) === undefined;
        if (!isSame) expect((await attach(url, all)).device).toBe(device);
        expect(await fsync(device)).toBe('EIO');
        expect(await fsync(device)).toBe('none');
      } finally {
        await server.close();
      }
    },
  );
});
