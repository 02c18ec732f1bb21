import { describe, expect, it } from 'vitest';
import { diskFacts } from '../helpers/block-client.js';
import { diskBench, fixedSense, type Sent } from '../helpers/scripted-port.js';

const READ16 = 0x88;
const WRITE10 = 0x2a;
const SYNCHRONIZE_CACHE10 = 0x35;
const FUA = 0x08;
const MIB = 1 << 20;

const lba10 = ({ cdb }: Sent): number => cdb.readUInt32BE(2);
const count10 = ({ cdb }: Sent): number => cdb.readUInt16BE(7);

describe('ScsiDisk: blocks', () => {
  it('a write command has its first block, its block count and its bytes', () => {
    const { client, port } = diskBench(diskFacts());
    const data = Buffer.alloc(1024, 0x5a);
    const answer = client.ask({ operation: 'write', offset: 4096, data });
    const sent = port.take();
    expect([sent.opcode, lba10(sent), count10(sent)]).toEqual([WRITE10, 8, 2]);
    expect(sent.data.equals(data)).toBe(true);
    expect(answer.answers).toBe(0);
    port.good(sent);
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('offsets and lengths are counted in blocks of 4096 bytes on such a disk', () => {
    const { client, port } = diskBench(diskFacts({ blockSizeBytes: 4096, blockCount: 1 << 18 }));
    client.ask({ operation: 'write', offset: 40960, data: Buffer.alloc(8192) });
    const sent = port.take();
    expect([lba10(sent), count10(sent)]).toEqual([10, 2]);
  });

  it('a disk over 2 TiB is read with READ(16), up to its last block', () => {
    const blockCount = 2 ** 53 / 512;
    const { client, port, dataIn } = diskBench(diskFacts({ blockCount }));
    const answer = client.ask({ operation: 'read', offset: 2 ** 53 - 512, length: 512 });
    const sent = port.take();
    expect(sent.opcode).toBe(READ16);
    expect(sent.cdb.readBigUInt64BE(2)).toBe(BigInt(blockCount - 1));
    dataIn(sent, Buffer.alloc(512, 7));
    port.good(sent);
    expect(answer.data.equals(Buffer.alloc(512, 7))).toBe(true);
  });

  it.each([
    ['a read outside the disk', { operation: 'read', offset: 1 << 30, length: 512 }, 'EINVAL'],
    ['a trim outside the disk', { operation: 'trim', offset: 1 << 30, length: 512 }, 'EINVAL'],
    [
      'a write over the end',
      { operation: 'write', offset: (1 << 30) - 512, data: Buffer.alloc(1024) },
      'EINVAL',
    ],
    [
      'write zeroes over the end',
      { operation: 'writeZeroes', offset: 1 << 30, length: 512 },
      'EINVAL',
    ],
    ['an offset inside a block', { operation: 'read', offset: 1, length: 512 }, 'EINVAL'],
    ['a length of part of a block', { operation: 'read', offset: 0, length: 100 }, 'EINVAL'],
    ['a length of nothing', { operation: 'read', offset: 0, length: 0 }, 'EINVAL'],
  ] as const)('%s is rejected without a command', (_title, asked, errno) => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask(asked);
    expect([answer.answers, answer.errno, port.sent.length]).toEqual([1, errno, 0]);
  });

  it.each(['write', 'trim', 'writeZeroes'] as const)('a read-only disk rejects %s', (operation) => {
    const asked = { operation, offset: 0, data: Buffer.alloc(512) };
    for (const bench of [
      diskBench(diskFacts({ readOnly: true })),
      diskBench(diskFacts(), { forcedReadOnly: true }),
    ]) {
      expect(bench.client.ask(asked).errno).toBe('EPERM');
      expect(bench.client.ask({ operation: 'read', length: 512 }).answers).toBe(0);
    }
  });
});

describe('ScsiDisk: a request over MAXIMUM TRANSFER LENGTH', () => {
  it('a write becomes commands of at most that many blocks, eight at a time', () => {
    const facts = diskFacts({ limits: { maxTransferBlocks: 8 } });
    const { client, port } = diskBench(facts);
    const data = Buffer.from(Array.from({ length: 20 * 4096 + 512 }, (_, at) => (at >> 9) & 0xff));
    const answer = client.ask({ operation: 'write', offset: 0, data });
    expect(port.sent.length).toBe(8);
    const disk = Buffer.alloc(data.length);
    while (port.sent.length > 0) {
      const sent = port.take();
      expect(count10(sent)).toBeLessThanOrEqual(8);
      sent.data.copy(disk, lba10(sent) * 512);
      expect(answer.answers).toBe(0);
      port.good(sent);
      expect(port.sent.length).toBeLessThanOrEqual(8);
    }
    expect([answer.answers, answer.errno]).toEqual([1, null]);
    expect(disk.equals(data)).toBe(true);
  });

  /** A disk that refuses transfers over `blocksMax` with ILLEGAL REQUEST, `asc`. */
  const refusing = (blocksMax: number, asc = 0x24) => {
    const bench = diskBench(diskFacts());
    const disk = Buffer.alloc(16 * MIB);
    const lengths: number[] = [];
    bench.port.onSubmit = (sent) => {
      const { port } = bench;
      port.sent.pop();
      lengths.push(count10(sent));
      if (count10(sent) > blocksMax) {
        port.check(sent, fixedSense(5, asc), { sentBytes: 0 });
        return;
      }
      const [start, end] = [lba10(sent) * 512, (lba10(sent) + count10(sent)) * 512];
      if (sent.opcode === WRITE10) sent.data.copy(disk, start);
      else bench.dataIn(sent, disk.subarray(start, end));
      port.good(sent);
    };
    return { ...bench, disk, lengths };
  };

  it('a disk that refuses long transfers (24h) gets shorter ones, and none so long again', () => {
    const { client, clock, disk, lengths } = refusing(1024);
    const data = Buffer.from(Array.from({ length: 3 * MIB }, (_, at) => (at >> 9) & 0xff));
    const written = client.ask({ operation: 'write', offset: 4096, data });
    clock.pass(5000);
    expect([written.answers, written.errno]).toEqual([1, null]);
    expect(disk.subarray(4096, 4096 + data.length).equals(data)).toBe(true);
    lengths.length = 0;
    const read = client.ask({ operation: 'read', offset: 4096, length: data.length });
    expect([read.errno, read.data.equals(data)]).toEqual([null, true]);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(1024);
  });

  it.each([
    ['of 64 KiB', 64 << 10, 0x24],
    ['for another reason than a field of the CDB', MIB, 0x26],
  ])('a write %s that a disk refuses fails with EINVAL, once', (_what, length, asc) => {
    const { client, lengths } = refusing(0, asc);
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(length) });
    expect([answer.answers, answer.errno, lengths.length]).toEqual([1, 'EINVAL', 1]);
  });

  it('a disk that refuses every length fails a long write with EINVAL', () => {
    const { client, clock, lengths } = refusing(0);
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(8 * MIB) });
    clock.pass(30_000);
    expect([answer.answers, answer.errno]).toEqual([1, 'EINVAL']);
    expect(lengths.length).toBeLessThan(64);
  });

  it('a read is joined in the order of the disk, whatever the order of the responses', () => {
    const { client, port, dataIn } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const answer = client.ask({ operation: 'read', offset: 0, length: 4 * 512 });
    const sent = [port.take(), port.take(), port.take(), port.take()];
    for (const at of [2, 0, 3, 1]) {
      dataIn(sent[at]!, Buffer.alloc(512, at + 1));
      port.good(sent[at]!);
    }
    const expected = Buffer.concat([1, 2, 3, 4].map((value) => Buffer.alloc(512, value)));
    expect(answer.data.equals(expected)).toBe(true);
  });

  it('a read whose first part is lost at once has no data of that part in the next try', () => {
    const { client, port, dataIn } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    port.onSubmit = (sent) => {
      port.onSubmit = null;
      dataIn(sent, Buffer.alloc(512, 0xee));
      port.lost(port.take());
    };
    const answer = client.ask({ operation: 'read', offset: 0, length: 1024 });
    for (const value of [1, 2]) {
      const sent = port.take();
      dataIn(sent, Buffer.alloc(512, value));
      port.good(sent);
    }
    const expected = Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]);
    expect([answer.answers, answer.data.equals(expected)]).toEqual([1, true]);
  });

  it('a command has at most 8 MiB if the disk reports no limit', () => {
    const { client, port } = diskBench(diskFacts());
    client.ask({ operation: 'read', offset: 0, length: 32 * MIB });
    expect(port.sent.map(({ command }) => command.transferLength)).toEqual(Array(4).fill(8 * MIB));
  });

  it('a request of which one part fails waits for the other parts and fails once', () => {
    const { client, port, dataIn } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const answer = client.ask({ operation: 'read', offset: 0, length: 20 * 512 });
    port.check(port.take(), fixedSense(3, 0x11));
    expect(answer.answers).toBe(0);
    while (port.sent.length > 0) {
      const sent = port.take();
      dataIn(sent, Buffer.alloc(512));
      port.good(sent);
    }
    expect([answer.answers, answer.errno, answer.data.length]).toEqual([1, 'EIO', 0]);
  });

  it('a part that is lost sends the whole request again, once all parts have ended', () => {
    const { client, port } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(3 * 512) });
    port.lost(port.take());
    port.good(port.take());
    expect(port.sent.length).toBe(1);
    port.good(port.take());
    expect(port.sent.map(lba10)).toEqual([0, 1, 2]);
    while (port.sent.length > 0) port.good(port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a command that ends inside submit ends the request neither early nor twice', () => {
    const { client, port, unit } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    port.onSubmit = (sent) => port.lost(sent);
    unit.queue.hold();
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(30 * 512) });
    unit.queue.release();
    expect(answer.answers).toBe(0);
    port.onSubmit = (sent) => port.good(sent);
    unit.queue.release();
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });
});

describe('ScsiDisk: FUA', () => {
  it('FUA is a bit of the WRITE if the disk reports DPOFUA', () => {
    const { client, port } = diskBench(diskFacts({ dpoFua: true }));
    const answer = client.ask({ operation: 'write', fua: true, data: Buffer.alloc(512) });
    const sent = port.take();
    expect(sent.cdb[1]! & FUA).toBe(FUA);
    port.good(sent);
    expect(answer.answers).toBe(1);
  });

  it.each(['write', 'writeZeroes', 'trim'] as const)(
    'FUA of %s is a SYNCHRONIZE CACHE after it if the disk has no such bit',
    (operation) => {
      const { client, port } = diskBench(diskFacts({ dpoFua: false }));
      const answer = client.ask({ operation, fua: true, data: Buffer.alloc(512) });
      const first = port.take();
      expect(first.opcode).not.toBe(SYNCHRONIZE_CACHE10);
      if (operation === 'write') expect(first.cdb[1]! & FUA).toBe(0);
      port.good(first);
      expect(answer.answers).toBe(0);
      const second = port.take();
      expect(second.opcode).toBe(SYNCHRONIZE_CACHE10);
      port.good(second);
      expect([answer.answers, answer.errno]).toEqual([1, null]);
    },
  );

  it('FUA has no effect on a read', () => {
    const { client, port } = diskBench(diskFacts());
    client.ask({ operation: 'read', fua: true, length: 512 });
    expect(port.take().cdb[1]).toBe(0);
  });
});

describe('ScsiDisk: flush', () => {
  it('a flush is SYNCHRONIZE CACHE of the whole disk, and waits for its end', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'flush' });
    const sent = port.take();
    expect(sent.cdb.subarray(0, 10).equals(Buffer.from('35000000000000000000', 'hex'))).toBe(true);
    expect(answer.answers).toBe(0);
    port.good(sent);
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it.each([
    ['fixed', fixedSense(5, 0x20)],
    ['descriptor', Buffer.from('7205200000000000', 'hex')],
  ])(
    'a flush succeeds on a disk without a cache that rejects the command (%s sense)',
    (_format, sense) => {
      const { client, port } = diskBench(diskFacts({ writeCacheEnabled: false }));
      const answer = client.ask({ operation: 'flush' });
      port.check(port.take(), sense);
      expect([answer.answers, answer.errno]).toEqual([1, null]);
    },
  );

  it('a flush fails if a disk with a cache rejects it', () => {
    const { client, port } = diskBench(diskFacts({ writeCacheEnabled: true }));
    const answer = client.ask({ operation: 'flush' });
    port.check(port.take(), fixedSense(5, 0x20));
    expect(answer.errno).toBe('ENOTSUP');
  });
});

describe('ScsiDisk: a transfer that does not match its blocks', () => {
  it('a short read is repeated and never given to the client', () => {
    const { client, port, dataIn } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'read', offset: 0, length: 1024 });
    const short = port.take();
    dataIn(short, Buffer.alloc(512));
    port.good(short, { residual: 512 });
    expect(answer.answers).toBe(0);
    const again = port.take();
    dataIn(again, Buffer.alloc(1024, 3));
    port.good(again);
    expect(answer.data.equals(Buffer.alloc(1024, 3))).toBe(true);
  });

  it.each([
    ['more', -7168],
    ['less', 7168],
  ])('a disk that takes %s for a write is probed, as it has other blocks now', (_how, residual) => {
    const { client, port, attentions, hooks, unit } = diskBench(diskFacts());
    hooks.onAttention = () => unit.queue.hold();
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(8192) });
    port.good(port.take(), { residual });
    expect(attentions).toEqual(['factsStale']);
    expect([answer.answers, port.sent.length, unit.queue.heldRequests]).toEqual([0, 0, 1]);
  });

  it('parts that are all wrong at once count as one try', () => {
    const { client, port, hooks, unit } = diskBench(
      diskFacts({ limits: { maxTransferBlocks: 1 } }),
    );
    hooks.onAttention = () => unit.queue.hold();
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(8 * 512) });
    while (port.sent.length > 0) port.good(port.take(), { residual: 512 });
    unit.queue.release();
    expect([answer.answers, port.sent.length]).toEqual([0, 8]);
    while (port.sent.length > 0) port.good(port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('an UNMAP whose list the target did not request is not done', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'trim', length: 4096 });
    port.good(port.take(), { sentBytes: 0 });
    expect(answer.answers).toBe(0);
    port.good(port.take(), { residual: 24 });
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a RECOVERED ERROR for a write whose data was not requested is no success', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'write', offset: 0, data: Buffer.alloc(512) });
    const sent = port.take();
    port.check(sent, fixedSense(1, 0x18), { sentBytes: 0 });
    expect(answer.answers).toBe(0);
    port.check(port.take(), fixedSense(1, 0x18));
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a read that overflows is not trusted', () => {
    const { client, port, attentions, dataIn } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'read', offset: 0, length: 512 });
    const sent = port.take();
    dataIn(sent, Buffer.alloc(512));
    port.good(sent, { residual: -3584 });
    expect(attentions).toEqual(['factsStale']);
    expect(answer.answers).toBe(0);
  });
});

describe('ScsiDisk: memory', () => {
  it('a read that waits for the session holds no data of the last try', () => {
    const { client, port, pool, unit, dataIn } = diskBench(diskFacts());
    client.ask({ operation: 'read', length: 4096 });
    const sent = port.take();
    dataIn(sent, Buffer.alloc(2048));
    unit.queue.hold();
    port.lost(sent);
    expect([unit.queue.heldRequests, pool.inUse]).toEqual([1, 0]);
  });

  it('every slab is free again after requests that succeed, fail, are lost and split', () => {
    const { client, port, pool, unit, dataIn } = diskBench(
      diskFacts({ limits: { maxTransferBlocks: 4 } }),
    );
    for (const end of ['good', 'fail', 'lost'] as const) {
      for (const operation of ['read', 'write', 'trim', 'writeZeroes'] as const) {
        const data = operation === 'read' ? {} : { data: Buffer.alloc(9000 - (9000 % 512)) };
        const answer = client.ask({ operation, length: 8192, ...data });
        let first = true;
        while (port.sent.length > 0) {
          const sent = port.take();
          if (sent.command.direction === 'read') {
            dataIn(sent, Buffer.alloc(sent.command.transferLength));
          }
          if (end === 'good' || !first) port.good(sent);
          else if (end === 'fail') port.check(sent, fixedSense(4, 0x44));
          else port.lost(sent);
          first = false;
        }
        expect(answer.answers).toBe(1);
      }
    }
    client.close();
    unit.disk.close();
    expect(pool.inUse).toBe(0);
  });
});
