import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { type Served, serveEmbedded, serveTgt } from '../helpers/served.js';

const MIB = 1 << 20;

/** Connects `h` without libnbd's own checks, so that wrong requests leave it too. */
const connect = ({ socket }: Served): string[] => [
  'import errno, json',
  'h.set_strict_mode(0)',
  'h.add_meta_context("base:allocation")',
  `h.connect_unix("${socket}")`,
  `
def told(call):
    try:
        call()
        return "ok"
    except nbd.Error as error:
        return errno.errorcode.get(error.errnum, str(error.errnum))
`,
  `
def alive():
    h.pwrite(b"x" * 4096, 8192)
    h.flush()
    assert h.pread(4096, 8192) == b"x" * 4096
`,
];

/** Runs `calls` one by one on one connection, which has to be usable after each. */
async function tell(served: Served, calls: readonly string[]): Promise<Record<string, string>> {
  const script = [
    ...connect(served),
    'results = {}',
    ...calls.map((call) => `results[${JSON.stringify(call)}] = told(lambda: ${call}); alive()`),
    'print(json.dumps(results))',
  ];
  return JSON.parse(await served.nbdsh(...script)) as Record<string, string>;
}

describe('errors seen by libnbd (NBD protocol, "Error values")', () => {
  it('each wrong request gets its error', async () => {
    await using served = await serveEmbedded({ sizeBytes: 64 * MIB });
    const expected = {
      'h.pread(512, 64 << 20)': 'EINVAL',
      'h.pread(1024, (64 << 20) - 512)': 'EINVAL',
      'h.pwrite(b"x" * 512, 64 << 20)': 'EINVAL',
      'h.pwrite(b"x" * 1024, (64 << 20) - 512)': 'EINVAL',
      'h.zero(1 << 20, 64 << 20)': 'EINVAL',
      'h.trim(1 << 20, 64 << 20)': 'EINVAL',
      'h.block_status(512, 64 << 20, lambda *a: 0)': 'EINVAL',
      'h.pread(512, 1 << 62)': 'EINVAL',
      'h.pread(512, 1)': 'EINVAL',
      'h.pread(100, 0)': 'EINVAL',
      'h.pwrite(b"x" * 100, 0)': 'EINVAL',
      'h.trim(100, 0)': 'EINVAL',
      'h.zero(512, 3)': 'EINVAL',
      'h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE)': 'EINVAL',
      'h.pwrite(b"x" * 512, 0, 1 << 7)': 'EINVAL',
      'h.flush(nbd.CMD_FLAG_REQ_ONE)': 'EINVAL',
      'h.cache(512, 0)': 'EINVAL',
      'h.pread(40 << 20, 0)': 'EINVAL',
      'h.pwrite(b"x" * (40 << 20), 0)': 'EINVAL',
      'h.pread(32 << 20, 0)': 'ok',
      'h.pwrite(b"y" * (32 << 20), 0)': 'ok',
      'h.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)': 'ok',
      'h.pread(512, 0, nbd.CMD_FLAG_DF)': 'ok',
      'h.trim(1 << 20, 0, nbd.CMD_FLAG_FUA)': 'ok',
      'h.zero(1 << 20, 0, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)': 'ok',
      'h.zero(1 << 20, 0, nbd.CMD_FLAG_FAST_ZERO)': 'ok',
      'h.zero(1 << 20, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)': 'ENOTSUP',
    };
    expect(await tell(served, Object.keys(expected))).toEqual(expected);
  });

  it('a read-only disk is reported, and rejects changes with EPERM', async () => {
    await using served = await serveEmbedded({ readOnly: true });
    const script = [
      ...connect(served),
      `print(h.is_read_only(), told(lambda: h.pwrite(b"x" * 512, 0)),
             told(lambda: h.trim(512, 0)), told(lambda: h.zero(512, 0)),
             told(lambda: h.flush()), told(lambda: h.pread(512, 0)))`,
    ];
    expect((await served.nbdsh(...script)).trim()).toBe('True EPERM EPERM EPERM ok ok');
  });

  it('an unknown command gets EINVAL', async () => {
    await using served = await serveEmbedded();
    const script = `
import socket, struct
s = socket.socket(socket.AF_UNIX)
s.connect("${served.socket}")
f = s.makefile("rwb")
assert f.read(18)[:16] == b"NBDMAGICIHAVEOPT"
f.write(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0)); f.flush()
assert struct.unpack(">Q", f.read(10)[:8])[0] == 64 << 20
answers = []
for number, length in ((9, 512), (65535, 0), (3, 0)):
    f.write(struct.pack(">IHHQQI", 0x25609513, 0, number, 7, 0, length)); f.flush()
    magic, error, cookie = struct.unpack(">IIQ", f.read(16))
    assert magic == 0x67446698 and cookie == 7
    answers.append(error)
print(answers)
`;
    expect((await served.nbdsh(script)).trim()).toBe('[22, 22, 0]');
  });

  it('a request smaller than a block of 4096 bytes gets EINVAL', async () => {
    await using served = await serveEmbedded({ blockSizeBytes: 4096 });
    const script = [
      ...connect(served),
      `print(h.get_block_size(nbd.SIZE_MINIMUM), told(lambda: h.pread(512, 0)),
             told(lambda: h.pwrite(b"x" * 4096, 512)), told(lambda: h.pwrite(b"x" * 4096, 4096)))`,
    ];
    expect((await served.nbdsh(...script)).trim()).toBe('4096 EINVAL EINVAL ok');
  });
});

describe('requests at the target', () => {
  it('FUA and FLUSH reach the target, TRIM frees space, WRITE_ZEROES unmaps unless NO_HOLE', async () => {
    await using served = await serveEmbedded({ writeCache: 'volatile' });
    const { disk, node } = served;
    await served.nbdsh(
      ...connect(served),
      'h.pwrite(b"a" * 4096, 0)',
      'h.pwrite(b"b" * 4096, 4096, nbd.CMD_FLAG_FUA)',
    );
    expect([node.stats.fuaWrites, node.stats.flushes, disk.unflushedBytes]).toEqual([1, 0, 4096]);
    await served.nbdsh(...connect(served), 'h.flush()');
    expect([node.stats.flushes, disk.unflushedBytes]).toEqual([1, 0]);
    await served.nbdsh(
      ...connect(served),
      'h.pwrite(b"c" * (1 << 20), 0)',
      'h.trim(1 << 19, 0)',
      'h.zero(65536, 1 << 19)',
      'h.zero(65536, (1 << 19) + 65536, nbd.CMD_FLAG_NO_HOLE)',
      'assert h.pread(131072, 1 << 19) == bytes(131072)',
    );
    expect(disk.extent(0, MIB)).toEqual({ mapped: false, length: MIB / 2 + 65536 });
    expect(disk.extent(MIB / 2 + 65536, MIB)).toMatchObject({ mapped: true });
  });

  it('a disk over 2 TiB is used to its last block', async () => {
    await using served = await serveEmbedded({ sizeBytes: 16 * 2 ** 40 });
    const last = 16 * 2 ** 40 - 4096;
    await served.nbdsh(
      ...connect(served),
      `assert h.get_size() == ${16 * 2 ** 40}`,
      `h.pwrite(b"z" * 4096, ${last})`,
      `assert h.pread(4096, ${last}) == b"z" * 4096`,
    );
    expect(served.disk.read(last, 4096).equals(Buffer.alloc(4096, 'z'))).toBe(true);
  });

  it.each([
    [512, 2n ** 62n - 512n],
    [4096, 2n ** 63n - 4096n],
  ] as const)(
    'the largest disk there can be is used to its last block (%i-byte blocks, %i bytes)',
    async (blockSizeBytes, size) => {
      await using served = await serveEmbedded({ sizeBytes: Number(size), blockSizeBytes });
      const last = size - BigInt(blockSizeBytes);
      const out = await served.nbdsh(
        ...connect(served),
        `n, size, last = ${blockSizeBytes}, ${size}, ${last}`,
        'block = (b"last" * n)[:n]',
        'assert h.get_size() == size',
        'h.pwrite(block, last, nbd.CMD_FLAG_FUA)',
        'assert h.pread(n, last) == block',
        'assert h.pread(2 * n, last - n) == bytes(n) + block',
        'h.trim(1 << 20, last - (1 << 20))',
        `print(told(lambda: h.pread(n, size)), told(lambda: h.pread(2 * n, last)),
               told(lambda: h.pread(n, last - 1)), told(lambda: h.pread(n, last + 1)),
               told(lambda: h.pwrite(block, last - n // 2)))`,
      );
      expect(out.trim()).toBe('EINVAL EINVAL EINVAL EINVAL EINVAL');
      const found = served.disk.read(Number(last), blockSizeBytes).toString();
      expect(found).toBe('last'.repeat(blockSizeBytes / 4));
    },
  );

  it('requests over the limits of the target are split, and each part is at its place', async () => {
    await using served = await serveEmbedded({
      limits: { transferBlocksMax: 24, writeSameBlocksMax: 40, unmapBlocksMax: 56 },
    });
    await served.nbdsh(
      ...connect(served),
      'import os',
      'data = os.urandom(3 << 20)',
      'h.pwrite(data, 4096)',
      'assert h.pread(len(data), 4096) == data',
      'h.zero(1 << 20, 1 << 20)',
      'h.trim(1 << 20, 2 << 20)',
      'data = data[:(1 << 20) - 4096] + bytes(2 << 20) + data[(3 << 20) - 4096:]',
      'assert h.pread(len(data), 4096) == data',
    );
  });

  it('a disk without WRITE SAME gets zeros as data', async () => {
    await using served = await serveEmbedded();
    served.node.faults.onCommand = ({ opcode }) =>
      opcode === 0x93 ? { sense: { key: 5, asc: 0x20, ascq: 0 } } : undefined;
    await served.nbdsh(
      ...connect(served),
      'h.pwrite(b"x" * (4 << 20), 0)',
      'h.zero(3 << 20, 4096)',
      'assert h.pread(4 << 20, 0) == b"x" * 4096 + bytes(3 << 20) + b"x" * ((1 << 20) - 4096)',
    );
  });

  it.each([
    ['nothing is retained: exactly one flush fails after a power loss', 'never', 'EIO ok'],
    ['no flush fails after a power loss, by default', 'auto', 'ok ok'],
  ] as const)('%s with unflushed writes', async (_what, retainWrites, flushes) => {
    await using served = await serveEmbedded({ writeCache: 'volatile' }, { retainWrites });
    const { node } = served;
    node.faults.onCommand = ({ opcode, count }) => {
      if (opcode === 0x28 && count === 1) setImmediate(() => node.restart({ powerLoss: true }));
      return undefined;
    };
    const out = await served.nbdsh(
      ...connect(served),
      'h.pwrite(b"x" * 4096, 0)',
      'h.pread(4096, 8192)',
      'import time; time.sleep(1)',
      'print(told(lambda: h.flush()), told(lambda: h.flush()))',
      'print(h.pread(4096, 0) == b"x" * 4096)',
    );
    expect(out.trim().split('\n')).toEqual([flushes, retainWrites === 'auto' ? 'True' : 'False']);
  });
});

describe('a disk that changes', () => {
  it('a disk that grows is larger for the next client, and for requests of this one', async () => {
    await using served = await serveEmbedded();
    served.disk.resize(128 * MIB);
    const script = [
      ...connect(served),
      'print(h.get_size() >> 20, told(lambda: h.pread(512, 0)))',
      'import time; time.sleep(1)',
      'print(told(lambda: h.pread(512, 100 << 20)))',
    ];
    expect((await served.nbdsh(...script)).split('\n').slice(0, 2)).toEqual(['64 ok', 'ok']);
    expect((await served.run('nbdinfo', '--size', served.uri)).trim()).toBe(String(128 * MIB));
    expect(served.events.map(({ event }) => event)).toContain('deviceResized');
  });

  it('a disk that becomes write-protected rejects writes with EPERM until it is writable again', async () => {
    await using served = await serveEmbedded();
    served.disk.readOnly = true;
    const refused = [
      ...connect(served),
      'print(told(lambda: h.pwrite(b"x" * 512, 0)), told(lambda: h.pread(512, 0)))',
    ];
    expect((await served.nbdsh(...refused)).trim()).toBe('EPERM ok');
    served.disk.readOnly = false;
    await served.nbdsh(...connect(served), 'h.pread(512, 0)', 'import time; time.sleep(1)');
    await served.nbdsh(...connect(served), 'alive()');
  });

  it('a disk that shrinks counts as another disk: its requests fail and it is removed', async () => {
    await using served = await serveEmbedded();
    served.disk.resize(32 * MIB);
    const script = [...connect(served), 'print(told(lambda: h.pread(512, 0)))'];
    expect((await served.nbdsh(...script)).trim()).toBe('EIO');
    await vi.waitFor(() =>
      expect(served.events.map(({ event }) => event)).toContain('deviceRemoved'),
    );
  });
});

const targets = [
  { name: 'the embedded target', open: () => serveEmbedded({ sizeBytes: 64 * MIB }) },
  {
    name: 'tgt',
    open: () => serveTgt({ sizeBytes: 64 * MIB, params: { thin_provisioning: 1 } }),
  },
];

describe.each(targets)('foreign NBD clients, on $name', ({ open }) => {
  it('nbdinfo shows the capabilities, and a map with a hole where no data was written', async () => {
    await using served = await open();
    const { exports } = JSON.parse(await served.run('nbdinfo', '--json', served.uri)) as {
      exports: Record<string, unknown>[];
    };
    expect(exports[0]).toMatchObject({
      'export-size': 64 * MIB,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      contexts: ['base:allocation'],
    });
    await served.run('qemu-io', '-f', 'raw', '-c', 'write -P 7 1M 1M', served.uri);
    const map = JSON.parse(await served.run('nbdinfo', '--map', '--json', served.uri)) as {
      offset: number;
      length: number;
      type: number;
    }[];
    expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(64 * MIB);
    const data = map.filter(({ type }) => type === 0);
    expect(data.map(({ offset, length }) => [offset, length])).toEqual([[MIB, MIB]]);
  });

  it('nbdcopy over four connections and qemu-img compare agree on every byte', async () => {
    await using served = await open();
    const folder = join(served.socket, '..');
    const image = join(folder, 'image');
    await served.run('sh', '-c', `head -c 48M /dev/urandom > ${image}; truncate -s 64M ${image}`);
    const copy = ['nbdcopy', '--connections=4', '--requests=32', '--flush'];
    await served.run(copy[0]!, ...copy.slice(1), image, served.uri);
    await served.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, served.uri);
    const back = join(folder, 'back');
    await served.run(copy[0]!, ...copy.slice(1), served.uri, back);
    expect((await readFile(back)).equals(await readFile(image))).toBe(true);
  });

  it('qemu-io reads back its patterns, zeroes, discards and flushes', async () => {
    await using served = await open();
    const commands = [
      'write -P 0x11 0 4M',
      'write -f -P 0x22 1M 512k',
      'write -z 2M 1M',
      'write -zu 3M 64k',
      'discard 3200k 64k',
      'flush',
      'aio_write -P 0x33 8M 8M',
      'aio_flush',
      'read -v -P 0x11 0 512',
      'read -P 0x11 0 1M',
      'read -P 0x22 1M 512k',
      'read -P 0x11 1536k 512k',
      'read -P 0 2M 1M',
      'read -P 0 3M 64k',
      'read -P 0x11 3584k 512k',
      'read -P 0x33 8M 8M',
      'read -P 0 16M 1M',
    ];
    const out = await served.run(
      'qemu-io',
      ...['-f', 'raw'],
      ...commands.flatMap((command) => ['-c', command]),
      served.uri,
    );
    expect(out).not.toMatch(/fail|error/i);
  });
});

it('tgt: a trim frees the blocks of the backing file', async () => {
  const folder = '/tmp';
  const file = join(folder, `iscsi-nbd-trim-${process.pid}.img`);
  await using served = await serveTgt({
    file,
    sizeBytes: 64 * MIB,
    params: { thin_provisioning: 1 },
  });
  const usedBytes = async (): Promise<number> => (await stat(file)).blocks * 512;
  await served.nbdsh(...connect(served), 'h.pwrite(b"x" * (16 << 20), 0)', 'h.flush()');
  expect(await usedBytes()).toBeGreaterThanOrEqual(16 * MIB);
  await served.nbdsh(...connect(served), 'h.trim(12 << 20, 0)', 'h.flush()');
  expect(await usedBytes()).toBeLessThanOrEqual(5 * MIB);
  await served.run('rm', file);
});

it('a target whose queue is full gets fewer commands at a time, and every request succeeds', async () => {
  await using served = await serveEmbedded();
  const { node } = served;
  const QUEUE = 8;
  let full = 0;
  let most = 0;
  node.faults.onCommand = ({ opcode }) => {
    if (opcode !== 0x2a) return undefined;
    const inFlight = node.sessions[0]?.tasks.size ?? 0;
    most = Math.max(most, inFlight);
    if (inFlight <= QUEUE) return { delayMs: 2 };
    full += 1;
    return { status: 0x28 };
  };
  const copy = ['--connections=4', '--requests=64', '--request-size=4096'];
  const image = join(served.socket, '..', 'image');
  await served.run('sh', '-c', `head -c 2M /dev/urandom > ${image}`);
  await served.run('nbdcopy', ...copy, image, served.uri);
  const fullBefore = full;
  expect(most).toBeGreaterThan(QUEUE);
  await served.run('nbdcopy', ...copy, image, served.uri);
  // The depth has come down near what the target takes: fewer refusals than before.
  expect(full - fullBefore).toBeLessThan(fullBefore);
  expect(served.disk.read(0, 2 * MIB).equals(await readFile(image))).toBe(true);
});
