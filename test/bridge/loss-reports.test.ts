import { describe, expect, it } from 'vitest';
import type { ByteRange } from '../../src/bridge/block-device.js';
import { diskFacts } from '../helpers/block-client.js';
import { type Peer, request } from '../helpers/nbd-peer.js';
import { type Bench, diskBench, fixedSense } from '../helpers/scripted-port.js';

const [WRITE, FLUSH] = [1, 3];
const POWER_ON = fixedSense(6, 0x29, 0x00);
const MIB = 1 << 20;
const EIO = 5;

/** Answers everything the disk is asked with GOOD. */
function settle({ port }: Bench): void {
  while (port.sent.length > 0) port.good(port.take());
}

function write(bench: Bench, peer: Peer, offset = 0): void {
  peer.send(request(WRITE, { offset: BigInt(offset), payload: Buffer.alloc(512, 1) }));
  settle(bench);
  expect(peer.errors()).toEqual([[1n, 0]]);
}

/** What a flush of the client comes to. */
function flush(bench: Bench, peer: Peer): number {
  peer.send(request(FLUSH, { cookie: 9n }));
  settle(bench);
  const [[cookie, errno] = [0n, -1]] = peer.errors();
  expect(cookie).toBe(9n);
  return errno;
}

/** The disk reports that it lost power, to a write without a cache. */
function losePower({ client, port }: Bench): void {
  client.ask({ operation: 'write', fua: true, data: Buffer.alloc(512) });
  port.check(port.take(), POWER_ON);
  while (port.sent.length > 0) port.good(port.take());
}

/** Partitions of equal size, `count` of them, on the disk of 1 GiB. */
function partitionsOf(count: number): ByteRange[] {
  const bytes = Math.floor(1024 / count) * MIB;
  return Array.from({ length: count }, (_, index) => ({
    startBytes: index * bytes,
    endBytes: (index + 1) * bytes,
  }));
}

describe('the report of lost acknowledged writes', () => {
  it('a loss is reported to every connected client, whichever client wrote', () => {
    const bench = diskBench(diskFacts());
    const [writer, reader] = [bench.newPeer(), bench.newPeer()];
    write(bench, writer);
    losePower(bench);
    expect([flush(bench, writer), flush(bench, writer)]).toEqual([EIO, 0]);
    expect([flush(bench, reader), flush(bench, reader)]).toEqual([EIO, 0]);
  });

  it('a loss that was reported to no client is reported to the first later one, and to none after it', () => {
    const bench = diskBench(diskFacts());
    const writer = bench.newPeer();
    write(bench, writer);
    losePower(bench);
    writer.close();
    const [first, second] = [bench.newPeer(), bench.newPeer()];
    expect([flush(bench, first), flush(bench, first)]).toEqual([EIO, 0]);
    expect([flush(bench, second), flush(bench, second)]).toEqual([EIO, 0]);
    expect(flush(bench, bench.newPeer())).toBe(0);
  });

  it('a loss is reported to the next client if the only one disconnects during its flush', () => {
    const bench = diskBench(diskFacts());
    const writer = bench.newPeer();
    write(bench, writer);
    writer.send(request(FLUSH));
    const sent = bench.port.take();
    writer.close();
    bench.port.check(sent, POWER_ON);
    expect(bench.unit.disk.cache.debts.isUntold).toBe(true);
    expect(flush(bench, bench.newPeer())).toBe(EIO);
  });

  it('a report owed to a client ends when that client disconnects after others got theirs', () => {
    const bench = diskBench(diskFacts());
    const [writer, other] = [bench.newPeer(), bench.newPeer()];
    write(bench, writer);
    losePower(bench);
    expect(flush(bench, writer)).toBe(EIO);
    expect(bench.unit.disk.cache.debts.isUntold).toBe(true);
    other.close();
    expect(bench.unit.disk.cache.debts.isUntold).toBe(false);
    expect(flush(bench, bench.newPeer())).toBe(0);
  });

  it('a loss is recorded before any reply, and cleared when every client has its report', () => {
    const bench = diskBench(diskFacts());
    const [writer, other] = [bench.newPeer(), bench.newPeer()];
    write(bench, writer);
    writer.send(request(FLUSH));
    const answersWhenKnown: number[] = [];
    bench.hooks.onAttention = () => answersWhenKnown.push(bench.hooks.losses.length);
    bench.port.check(bench.port.take(), POWER_ON);
    expect(writer.errors()).toEqual([[1n, EIO]]);
    expect([answersWhenKnown, bench.hooks.losses]).toEqual([[1], [true]]);
    expect(flush(bench, other)).toBe(EIO);
    expect([bench.hooks.losses, bench.unit.disk.cache.debts.isUntold]).toEqual([
      [true, false],
      false,
    ]);
  });

  it('a loss known to an earlier process is reported to all clients', () => {
    const bench = diskBench(diskFacts());
    const early = bench.newPeer();
    bench.unit.disk.cache.wasLostBefore();
    const late = bench.newPeer();
    expect(bench.hooks.losses).toEqual([true]);
    expect([flush(bench, early), flush(bench, early)]).toEqual([EIO, 0]);
    expect([flush(bench, late), flush(bench, late)]).toEqual([EIO, 0]);
    expect(bench.hooks.losses).toEqual([true, false]);
  });
});

describe('the report of a loss on a kernel device', () => {
  /** A device with partitions, written to at the beginning of each of `written`. */
  function device(count: number, written: readonly number[]) {
    const bench = diskBench(diskFacts());
    const partitions = partitionsOf(count);
    let asked = 0;
    const kernel = bench.newPeer(() => {
      asked += 1;
      return partitions;
    });
    const writeTo = (index: number) => write(bench, kernel, partitions[index]!.startBytes);
    for (const index of written) writeTo(index);
    return { bench, kernel, writeTo, asked: () => asked };
  }

  it('a loss is reported once for each partition that had unflushed writes', () => {
    const { bench, kernel, asked } = device(4, [0, 2]);
    expect(asked()).toBe(0);
    losePower(bench);
    const errors = [flush(bench, kernel), flush(bench, kernel), flush(bench, kernel)];
    expect(errors).toEqual([EIO, EIO, 0]);
    expect(asked()).toBe(1);
  });

  it('a loss is reported once if one partition had such writes, or if there is no partition', () => {
    for (const { bench, kernel } of [device(4, [3]), device(1, [0])]) {
      losePower(bench);
      expect([flush(bench, kernel), flush(bench, kernel)]).toEqual([EIO, 0]);
    }
    const whole = diskBench(diskFacts());
    const kernel = whole.newPeer(() => []);
    write(whole, kernel);
    losePower(whole);
    expect([flush(whole, kernel), flush(whole, kernel)]).toEqual([EIO, 0]);
  });

  it('a loss is reported to a second file system although the first one flushes first and wrote last', () => {
    const { bench, kernel, writeTo } = device(2, [0, 1]);
    losePower(bench);
    writeTo(0);
    writeTo(1);
    expect(flush(bench, kernel)).toBe(EIO);
    expect(bench.unit.disk.cache.debts.isUntold).toBe(true);
    expect([flush(bench, kernel), flush(bench, kernel)]).toEqual([EIO, 0]);
  });

  it('a loss is reported by 32 failed flushes at most', () => {
    const { bench, kernel } = device(
      64,
      Array.from({ length: 64 }, (_, index) => index),
    );
    losePower(bench);
    const errors = Array.from({ length: 40 }, () => flush(bench, kernel));
    expect(errors.filter((errno) => errno === EIO)).toHaveLength(32);
    expect(errors.slice(32)).toEqual(Array(8).fill(0));
  });

  it('a loss is reported to the next connection of the device if one partition has no report yet', () => {
    const { bench, kernel } = device(2, [0, 1]);
    losePower(bench);
    expect(flush(bench, kernel)).toBe(EIO);
    kernel.close();
    expect(bench.unit.disk.cache.debts.isUntold).toBe(true);
    expect(
      flush(
        bench,
        bench.newPeer(() => partitionsOf(2)),
      ),
    ).toBe(EIO);
  });

  it('a loss is reported for every partition if an earlier process had the device', () => {
    const { bench, kernel } = device(2, []);
    bench.unit.takenOver();
    losePower(bench);
    const errors = [flush(bench, kernel), flush(bench, kernel), flush(bench, kernel)];
    expect(errors).toEqual([EIO, EIO, 0]);
  });
});
