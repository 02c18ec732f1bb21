import { describe, expect, it } from 'vitest';
import { diskFacts } from '../helpers/block-client.js';
import { type Bench, diskBench, fixedSense } from '../helpers/scripted-port.js';

const POWER_ON = fixedSense(6, 0x29, 0x00);
const NEXUS_LOST = fixedSense(6, 0x29, 0x07);
const WRITE = { operation: 'write', data: Buffer.alloc(512) } as const;
const FLUSH = { operation: 'flush' } as const;

/** A write that the disk acknowledges into its cache. */
function acknowledge({ client, port }: Bench, fua = false): void {
  client.ask({ ...WRITE, fua });
  port.good(port.take());
}

/** The disk reports `sense` to a read of another client, which is then retried. */
function report({ client, port, dataIn }: Bench, sense: Buffer): void {
  client.ask({ operation: 'read', length: 512 });
  port.check(port.take(), sense);
  const again = port.sent.pop()!;
  dataIn(again, Buffer.alloc(512));
  port.good(again);
}

function flush({ client, port }: Bench): string | null {
  const answer = client.ask(FLUSH);
  if (port.sent.length > 0) port.good(port.take());
  expect(answer.answers).toBe(1);
  return answer.errno;
}

describe('acknowledged writes in a volatile cache', () => {
  it.each([
    ['power on', POWER_ON],
    ['power on occurred', fixedSense(6, 0x29, 0x01)],
    ['reset', fixedSense(6, 0x29, 0x03)],
    ['device internal reset', fixedSense(6, 0x29, 0x04)],
  ])('exactly the next flush fails after %s', (_name, sense) => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    report(bench, sense);
    expect([flush(bench), flush(bench)]).toEqual(['EIO', null]);
  });

  it('a unit attention that meets the flush itself counts', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    const answer = bench.client.ask(FLUSH);
    bench.port.check(bench.port.take(), POWER_ON);
    expect([answer.answers, answer.errno]).toEqual([1, 'EIO']);
    expect(flush(bench)).toBeNull();
  });

  it('every pending flush fails when the loss is reported, as it may have run too late', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    const first = bench.client.ask(FLUSH);
    const second = bench.client.ask(FLUSH);
    const sent = [bench.port.take(), bench.port.take()];
    report(bench, POWER_ON);
    for (const each of sent) bench.port.good(each);
    expect([first.errno, second.errno, flush(bench)]).toEqual(['EIO', 'EIO', null]);
  });

  it('writes that a flush covered are not lost', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    expect(flush(bench)).toBeNull();
    report(bench, POWER_ON);
    expect(flush(bench)).toBeNull();
  });

  it('a flush covers only the writes acknowledged before it was sent', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    bench.client.ask(FLUSH);
    const sent = bench.port.take();
    acknowledge(bench);
    bench.port.good(sent);
    report(bench, POWER_ON);
    expect(flush(bench)).toBe('EIO');
  });

  it('a loss needs an acknowledged write, no FUA, and a disk with a cache', () => {
    const none = diskBench(diskFacts());
    const fua = diskBench(diskFacts());
    acknowledge(fua, true);
    const through = diskBench(diskFacts({ writeCacheEnabled: false }));
    acknowledge(through);
    for (const bench of [none, fua, through]) {
      report(bench, POWER_ON);
      expect(flush(bench)).toBeNull();
    }
  });

  it('an I_T nexus loss leaves the cache alone (SAM-5 §6.3.4)', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    report(bench, NEXUS_LOST);
    expect(flush(bench)).toBeNull();
  });

  it('a deferred error fails the next flush, also without a known cache', () => {
    const bench = diskBench(diskFacts({ writeCacheEnabled: false }));
    acknowledge(bench);
    report(bench, fixedSense(3, 0x0c, 0, true));
    expect([flush(bench), flush(bench)]).toEqual(['EIO', null]);
  });

  it('a loss that was reported is not reported again', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    report(bench, POWER_ON);
    expect(flush(bench)).toBe('EIO');
    report(bench, POWER_ON);
    expect(flush(bench)).toBeNull();
  });

  it('a write of zeroes counts as a write', () => {
    const bench = diskBench(diskFacts());
    bench.client.ask({ operation: 'writeZeroes', length: 4096 });
    bench.port.good(bench.port.take());
    report(bench, POWER_ON);
    expect(flush(bench)).toBe('EIO');
  });

  it('a unit attention before the first command after a new login counts', () => {
    const bench = diskBench(diskFacts());
    acknowledge(bench);
    bench.unit.queue.hold();
    const held = bench.client.ask(FLUSH);
    bench.unit.disk.cache.mayBeLost();
    bench.unit.queue.release();
    expect([held.answers, held.errno, flush(bench)]).toEqual([1, 'EIO', null]);
  });
});

describe('a disk taken over from a process that died', () => {
  it('a power on fails the next flush, as writes that process acknowledged may be lost', () => {
    const bench = diskBench(diskFacts());
    bench.unit.takenOver();
    report(bench, POWER_ON);
    expect([flush(bench), flush(bench)]).toEqual(['EIO', null]);
  });

  it('a disk without a power on, or without a volatile cache, has lost nothing', () => {
    const quiet = diskBench(diskFacts());
    quiet.unit.takenOver();
    report(quiet, NEXUS_LOST);
    expect(flush(quiet)).toBeNull();
    const stable = diskBench(diskFacts({ writeCacheEnabled: false }));
    stable.unit.takenOver();
    report(stable, POWER_ON);
    expect(flush(stable)).toBeNull();
  });
});

describe('a write that was pending when the cache was lost', () => {
  it('a write in parts is repeated from the start', () => {
    const bench = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const answer = bench.client.ask({ operation: 'write', data: Buffer.alloc(1024) });
    bench.port.good(bench.port.take());
    bench.port.check(bench.port.take(), POWER_ON);
    bench.port.good(bench.port.take());
    expect(answer.answers).toBe(0);
    expect(bench.port.sent.map(({ cdb }) => cdb.readUInt32BE(2))).toEqual([0, 1]);
    while (bench.port.sent.length > 0) bench.port.good(bench.port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
    expect(flush(bench)).toBeNull();
  });

  it('a write with FUA by a flush is repeated, and the flush of other clients still fails', () => {
    const bench = diskBench(diskFacts({ dpoFua: false }));
    acknowledge(bench);
    const answer = bench.client.ask({ ...WRITE, fua: true });
    bench.port.good(bench.port.take());
    bench.port.check(bench.port.take(), POWER_ON);
    bench.port.good(bench.port.take());
    expect(answer.answers).toBe(0);
    expect(bench.port.sent.map(({ opcode }) => opcode)).toEqual([0x2a]);
    bench.port.good(bench.port.take());
    bench.port.good(bench.port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
    expect([flush(bench), flush(bench)]).toEqual(['EIO', null]);
  });
});
