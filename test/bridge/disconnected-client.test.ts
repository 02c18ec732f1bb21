import { describe, expect, it } from 'vitest';
import { diskFacts } from '../helpers/block-client.js';
import { type Peer, request } from '../helpers/nbd-peer.js';
import { type Bench, diskBench, fixedSense, type Sent } from '../helpers/scripted-port.js';

const [WRITE, FLUSH] = [1, 3];
const EIO = 5;
const BUSY = 0x08;

const write = (block: number, cookie = BigInt(block), blocks = 1): Buffer =>
  request(WRITE, {
    cookie,
    offset: BigInt(block * 512),
    payload: Buffer.alloc(blocks * 512, block),
  });
const blocksOf = (sent: readonly Sent[]): number[] => sent.map(({ cdb }) => cdb.readUInt32BE(2));

/** A client has gone with a write of blocks 0 to 9 at the target; another one is connected. */
function abandoned(): { bench: Bench; old: Sent; other: Peer } {
  const bench = diskBench(diskFacts());
  const gone = bench.newPeer();
  gone.send(write(0, 1n, 10));
  const old = bench.port.take();
  gone.close();
  return { bench, old, other: bench.newPeer() };
}

describe('a write at the target whose client disconnected', () => {
  it('requests that overlap the write are held, and go out later in the order of arrival', () => {
    const { bench, old, other } = abandoned();
    const { port, unit } = bench;
    other.send(write(9), write(10), write(3), request(FLUSH, { cookie: 77n }));
    expect(port.sent.map(({ opcode }) => opcode)).toEqual([0x2a, 0x35]);
    expect(blocksOf(port.sent.splice(0, 1))).toEqual([10]);
    expect([unit.queue.heldRequests, unit.queue.heldBytes]).toEqual([2, 1024]);
    port.sent.length = 0;
    port.good(old);
    expect(blocksOf(port.sent)).toEqual([9, 3]);
    expect([unit.queue.heldRequests, unit.queue.heldBytes]).toEqual([0, 0]);
  });

  it.each(['answered', 'aborted'] as const)(
    'an overlapping request goes out when the write was %s',
    (how) => {
      const { bench, old, other } = abandoned();
      const { port, clock } = bench;
      other.send(write(5));
      expect(port.sent).toHaveLength(0);
      if (how === 'answered') port.check(old, fixedSense(4, 0x44));
      else port.lost(old, 'aborted');
      expect(blocksOf(port.sent)).toEqual([5]);
      port.good(port.take());
      expect(other.errors()).toEqual([[5n, 0]]);
      expect([clock.timers, port.sent.length]).toEqual([0, 0]);
    },
  );

  it('a held request ends with its own client', () => {
    const { bench, old, other } = abandoned();
    const { port, unit, pool } = bench;
    other.send(write(5));
    other.close();
    expect([unit.queue.heldRequests, unit.queue.heldBytes]).toEqual([0, 0]);
    port.good(old);
    expect([port.sent.length, unit.budget.requests, pool.inUse]).toEqual([0, 0, 0]);
  });

  it('a held request fails when the disk is removed', () => {
    const { bench, old, other } = abandoned();
    other.send(write(5));
    bench.unit.queue.fail('removed');
    expect(other.errors()).toEqual([[5n, EIO]]);
    bench.port.lost(old);
    bench.unit.queue.release();
    expect([bench.port.sent.length, bench.unit.queue.heldBytes]).toEqual([0, 0]);
  });

  it('requests that were held before the outage also wait for the write after it', () => {
    const { bench, old, other } = abandoned();
    const { port, unit } = bench;
    unit.queue.hold();
    other.send(write(5), write(20));
    unit.queue.release();
    expect(blocksOf(port.sent.splice(0))).toEqual([20]);
    expect(unit.queue.heldRequests).toBe(1);
    unit.queue.hold();
    port.lost(old);
    expect([port.sent.length, unit.queue.heldRequests]).toEqual([0, 1]);
    unit.queue.release();
    expect(blocksOf(port.sent)).toEqual([5]);
  });
});

describe('a request whose client disconnected', () => {
  it('a request in a retry pause is not sent after the pause', () => {
    const bench = diskBench(diskFacts());
    const { port, clock, unit } = bench;
    const gone = bench.newPeer();
    gone.send(write(1));
    port.status(port.take(), BUSY);
    gone.close();
    const other = bench.newPeer();
    other.send(write(1));
    clock.pass(60_000);
    expect(port.sent.map(({ data }) => data[0])).toEqual([1]);
    port.good(port.take());
    expect([other.errors(), unit.budget.requests]).toEqual([[[1n, 0]], 0]);
  });

  it('the remaining parts of a split request are not sent', () => {
    const bench = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const { port, unit } = bench;
    const gone = bench.newPeer();
    gone.send(write(0, 1n, 20));
    gone.close();
    for (let part = 0; part < 8; part += 1) port.good(port.take());
    expect([port.sent.length, unit.budget.requests]).toEqual([0, 0]);
  });
});
