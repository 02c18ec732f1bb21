import { describe, expect, it } from 'vitest';
import { diskFacts } from '../helpers/block-client.js';
import { diskBench, fixedSense, type Sent } from '../helpers/scripted-port.js';

const UNMAP = 0x42;
const WRITE10 = 0x2a;
const WRITE_SAME16 = 0x93;

/** LBA and count of the one block descriptor in an UNMAP parameter list (SBC-3 §5.28.2). */
function unmapped({ data }: Sent): [number, number] {
  expect([data.readUInt16BE(0), data.readUInt16BE(2)]).toEqual([22, 16]);
  return [Number(data.readBigUInt64BE(8)), data.readUInt32BE(16)];
}

/** LBA, count and the UNMAP bit of a WRITE SAME(16). */
function same({ cdb }: Sent): [number, number, boolean] {
  return [Number(cdb.readBigUInt64BE(2)), cdb.readUInt32BE(10), (cdb[1]! & 0x08) !== 0];
}

describe('trim', () => {
  it('a trim is one UNMAP with one descriptor', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'trim', offset: 5120, length: 1024 });
    const sent = port.take();
    expect([sent.opcode, sent.cdb.readUInt16BE(7)]).toEqual([UNMAP, 24]);
    expect(unmapped(sent)).toEqual([10, 2]);
    port.good(sent);
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it.each([
    [{ from: 0, to: 64 }, [3, 56]],
    [{ from: 3, to: 11 }, [3, 8]],
    [{ from: 4, to: 20 }, [11, 8]],
    [{ from: 2, to: 11 }, [3, 8]],
  ] as const)(
    'a trim is rounded inwards to granules of 8 blocks that begin at block 3 (%o)',
    ({ from, to }, expected) => {
      const facts = diskFacts({ limits: { unmapGranularity: 8, unmapAlignment: 3 } });
      const { client, port } = diskBench(facts);
      client.ask({ operation: 'trim', offset: from * 512, length: (to - from) * 512 });
      expect(unmapped(port.take())).toEqual(expected);
    },
  );

  it('a trim covers all whole granules of the request and no block outside it', () => {
    for (const granularity of [1, 3, 8]) {
      for (const alignment of [0, 1, 7]) {
        for (let from = 0; from < 12; from += 1) {
          for (let to = from + 1; to < 30; to += 1) {
            const limits = {
              unmapGranularity: granularity,
              unmapAlignment: alignment,
              unmapLbaMax: 10,
            };
            const { client, port } = diskBench(diskFacts({ limits }));
            const answer = client.ask({
              operation: 'trim',
              offset: from * 512,
              length: (to - from) * 512,
            });
            const blocks = new Set<number>();
            while (port.sent.length > 0) {
              const sent = port.take();
              const [lba, count] = unmapped(sent);
              expect(count).toBeLessThanOrEqual(10);
              // A granule cut in two would be spared by both halves.
              expect((lba + granularity * 9 - alignment) % granularity).toBe(0);
              expect(count % granularity).toBe(0);
              for (let at = 0; at < count; at += 1) blocks.add(lba + at);
              port.good(sent);
            }
            const wanted = new Set<number>();
            for (let start = (alignment % granularity) - granularity; start < to; ) {
              const whole = start >= from && start + granularity <= to;
              for (let at = 0; whole && at < granularity; at += 1) wanted.add(start + at);
              start += granularity;
            }
            expect([...blocks].sort(), `${granularity} ${alignment} ${from} ${to}`).toEqual(
              [...wanted].sort(),
            );
            expect(answer.errno).toBeNull();
          }
        }
      }
    }
  });

  it('a trim of less than a granule succeeds without a command', () => {
    const { client, port } = diskBench(diskFacts({ limits: { unmapGranularity: 8 } }));
    const answer = client.ask({ operation: 'trim', offset: 512, length: 7 * 512 });
    expect([answer.answers, answer.errno, port.sent.length]).toEqual([1, null, 0]);
  });

  it('a trim over MAXIMUM UNMAP LBA COUNT is split', () => {
    const { client, port } = diskBench(diskFacts({ limits: { unmapLbaMax: 4 } }));
    client.ask({ operation: 'trim', offset: 0, length: 10 * 512 });
    expect(port.sent.map(unmapped)).toEqual([
      [0, 4],
      [4, 4],
      [8, 2],
    ]);
  });

  it('a trim without UNMAP is WRITE SAME with the UNMAP bit, even if unmapped blocks read as anything', () => {
    const thin = { unmap: false, writeSame16Unmap: true, readsZero: false };
    const { client, port } = diskBench(diskFacts({ thin, limits: { writeSameBlocksMax: 0 } }));
    client.ask({ operation: 'trim', offset: 0, length: 4096 });
    const sent = port.take();
    expect([sent.opcode, ...same(sent)]).toEqual([WRITE_SAME16, 0, 8, true]);
    expect(sent.data.equals(Buffer.alloc(512))).toBe(true);
  });

  it('a trim that the disk cannot do, or rejects, succeeds: it is advice', () => {
    const cannot = diskBench(diskFacts({ thin: { unmap: false, writeSame16Unmap: false } }));
    const answer = cannot.client.ask({ operation: 'trim', length: 512 });
    expect([answer.errno, cannot.port.sent.length]).toEqual([null, 0]);
    const refuses = diskBench(diskFacts());
    const refused = refuses.client.ask({ operation: 'trim', length: 512 });
    refuses.port.check(refuses.port.take(), Buffer.from('7205240000000000', 'hex'));
    expect([refused.answers, refused.errno]).toEqual([1, null]);
  });
});

describe('write zeroes', () => {
  it('a write of zeroes is WRITE SAME(16) of one zero block, with UNMAP if unmapped blocks read as zeros', () => {
    const { client, port } = diskBench(diskFacts());
    client.ask({ operation: 'writeZeroes', offset: 512, length: 4096 });
    const sent = port.take();
    expect([sent.opcode, ...same(sent)]).toEqual([WRITE_SAME16, 1, 8, true]);
    expect(sent.data.equals(Buffer.alloc(512))).toBe(true);
  });

  it('a write of zeroes has no UNMAP with NO_HOLE, or if unmapped blocks may read as anything', () => {
    const noHole = diskBench(diskFacts());
    noHole.client.ask({ operation: 'writeZeroes', length: 512, noHole: true });
    expect(same(noHole.port.take())[2]).toBe(false);
    const anything = diskBench(diskFacts({ thin: { readsZero: false } }));
    anything.client.ask({ operation: 'writeZeroes', length: 512 });
    expect(same(anything.port.take())[2]).toBe(false);
  });

  it('a write of zeroes over MAXIMUM WRITE SAME LENGTH is split', () => {
    const { client, port } = diskBench(diskFacts({ limits: { writeSameBlocksMax: 3 } }));
    client.ask({ operation: 'writeZeroes', length: 7 * 512 });
    expect(port.sent.map((sent) => same(sent).slice(0, 2))).toEqual([
      [0, 3],
      [3, 3],
      [6, 1],
    ]);
  });

  it('FAST_ZERO fails with ENOTSUP, at once, unless the disk can unmap the blocks', () => {
    const fast = diskBench(diskFacts());
    fast.client.ask({ operation: 'writeZeroes', length: 512, fastZero: true });
    expect(fast.port.sent.length).toBe(1);
    const asked = { operation: 'writeZeroes', length: 512, fastZero: true } as const;
    const slow = diskBench(diskFacts({ thin: { writeSame16Unmap: false } }));
    expect([slow.client.ask(asked).errno, slow.port.sent.length]).toEqual(['ENOTSUP', 0]);
    expect(fast.client.ask({ ...asked, noHole: true }).errno).toBe('ENOTSUP');
  });

  it.each([0x20, 0x24])(
    'a write of zeroes that the disk rejects (05h/%ih) writes zeros as data, from then on',
    (asc) => {
      const { client, port } = diskBench(diskFacts({ limits: { maxTransferBlocks: 8 } }));
      const answer = client.ask({ operation: 'writeZeroes', offset: 1024, length: 5120 });
      port.check(port.take(), fixedSense(5, asc));
      const parts = [port.take(), port.take()];
      expect(parts.map(({ opcode, data }) => [opcode, data.length])).toEqual([
        [WRITE10, 4096],
        [WRITE10, 1024],
      ]);
      expect(parts.every(({ data }) => data.every((byte) => byte === 0))).toBe(true);
      for (const part of parts) port.good(part);
      expect([answer.answers, answer.errno]).toEqual([1, null]);
      client.ask({ operation: 'writeZeroes', length: 512 });
      expect(port.take().opcode).toBe(WRITE10);
      expect(client.ask({ operation: 'writeZeroes', length: 512, fastZero: true }).errno).toBe(
        'ENOTSUP',
      );
    },
  );

  it('a write of zeroes fails if the disk rejects the zeros as data too', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask({ operation: 'writeZeroes', length: 512 });
    port.check(port.take(), fixedSense(5, 0x24));
    port.check(port.take(), fixedSense(5, 0x24));
    expect([answer.answers, answer.errno, port.sent.length]).toEqual([1, 'EINVAL', 0]);
  });
});

describe('block status', () => {
  const asked = { operation: 'blockStatus', offset: 1024, length: 8192 } as const;

  /** GET LBA STATUS data (SBC-3 §5.4.2) from [LBA, count, status] rows. */
  function lbaStatus(rows: [number, number, number][]): Buffer {
    const data = Buffer.alloc(8 + rows.length * 16);
    data.writeUInt32BE(data.length - 4, 0);
    for (const [index, [lba, count, status]] of rows.entries()) {
      data.writeBigUInt64BE(BigInt(lba), 8 + index * 16);
      data.writeUInt32BE(count, 16 + index * 16);
      data[20 + index * 16] = status;
    }
    return data;
  }

  it('a block status request is GET LBA STATUS; its extents are cut to the request', () => {
    const { client, port, dataIn } = diskBench(diskFacts());
    const answer = client.ask(asked);
    const sent = port.take();
    expect([sent.opcode, sent.cdb[1], Number(sent.cdb.readBigUInt64BE(2))]).toEqual([
      0x9e, 0x12, 2,
    ]);
    const rows = lbaStatus([
      [0, 4, 0],
      [4, 4, 1],
      [8, 100, 2],
    ]);
    dataIn(sent, rows);
    port.good(sent, { residual: sent.command.transferLength - rows.length });
    expect(answer.extents).toEqual([
      { lengthBytes: 1024, hole: false, zero: false },
      { lengthBytes: 2048, hole: true, zero: true },
      { lengthBytes: 5120, hole: false, zero: true },
    ]);
  });

  it('a hole is not reported as zero if unmapped blocks may read as anything', () => {
    const { client, port, dataIn } = diskBench(diskFacts({ thin: { readsZero: false } }));
    const answer = client.ask(asked);
    const sent = port.take();
    dataIn(sent, lbaStatus([[2, 100, 1]]));
    port.good(sent, { residual: 8 });
    expect(answer.extents).toEqual([{ lengthBytes: 8192, hole: true, zero: false }]);
  });

  it.each([
    ['nothing', Buffer.alloc(0)],
    ['an extent before what was asked', lbaStatus([[0, 1, 1]])],
    ['an extent after it', lbaStatus([[9, 1, 1]])],
    ['an empty extent', lbaStatus([[2, 0, 1]])],
    ['noise', Buffer.alloc(100, 0xff)],
  ])('a response with %s counts as data, and does no harm', (_what, bytes) => {
    const { client, port, dataIn } = diskBench(diskFacts());
    const answer = client.ask(asked);
    const sent = port.take();
    dataIn(sent, bytes);
    port.good(sent, { residual: 1 });
    expect([answer.answers, answer.errno]).toEqual([1, null]);
    expect(answer.extents).toEqual([{ lengthBytes: 8192, hole: false, zero: false }]);
  });

  it('a disk that does not support the command has only data', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask(asked);
    port.check(port.take(), fixedSense(5, 0x20));
    expect(answer.errno).toBeNull();
    expect(answer.extents).toEqual([{ lengthBytes: 8192, hole: false, zero: false }]);
  });

  it('other failures of the command are reported; a lost command is repeated', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask(asked);
    port.lost(port.take());
    port.check(port.take(), fixedSense(4, 0x44));
    expect([answer.answers, answer.errno]).toEqual([1, 'EIO']);
  });
});
