import { describe, expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { Budget } from '../../src/bridge/budget.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';
import { HeldDisk, Peer, request } from '../helpers/nbd-peer.js';

const [READ, FLUSH] = [0, 3];
const KIB = 1024;

/** Logical units of one session, each with a disk that answers when the test says so. */
function session(count: number, limits: { requestsMax?: number; bytesMax?: number } = {}) {
  const pool = new SlabPool({ slabsMax: 64 });
  const budget = new Budget({ requestsMax: 8192, bytesMax: 1 << 30, ...limits });
  const units = Array.from({ length: count }, () => {
    const disk = new HeldDisk();
    const unitBudget = new UnitBudget(budget);
    const newPeer = () => new Peer(pool, unitBudget, disk);
    return { disk, unitBudget, newPeer, peer: newPeer() };
  });
  return { budget, units };
}

const reads = (count: number, length = 4 * KIB): Buffer[] =>
  Array.from({ length: count }, () => request(READ, { length }));

describe('UnitBudget of a unit that does not respond', () => {
  it('a hung unit leaves requests and bytes to the other units of its session', () => {
    for (const limits of [{ requestsMax: 64 }, { bytesMax: 64 * 4 * KIB }]) {
      const { units } = session(2, limits);
      const [hung, healthy] = [units[0]!, units[1]!];
      hung.peer.send(...reads(100));
      // Half of all, and of the other half what is not guaranteed to the other unit.
      expect(hung.disk.requests).toHaveLength(48);
      healthy.peer.send(...reads(100));
      expect(healthy.disk.requests).toHaveLength(16);
      for (let round = 0; round < 50; round += 1) {
        healthy.disk.done('EIO');
        expect(healthy.disk.requests).toHaveLength(16);
      }
      expect(hung.disk.requests).toHaveLength(48);
    }
  });

  it('clients of a hung unit do not wait before those of others, which wake in turn', () => {
    const { units } = session(3, { requestsMax: 12 });
    const [hung, first, second] = [units[0]!, units[1]!, units[2]!];
    for (let client = 0; client < 10; client += 1) hung.newPeer().send(...reads(10));
    expect(hung.disk.requests).toHaveLength(8);
    first.peer.send(...reads(10));
    second.peer.send(...reads(10));
    expect([first.disk.requests.length, second.disk.requests.length]).toEqual([2, 2]);
    // Room that one of them makes is its own; the hung unit has more than its share already.
    for (let round = 0; round < 8; round += 1) {
      first.disk.done('EIO');
      second.disk.done('EIO');
    }
    expect([first.disk.requests.length, second.disk.requests.length]).toEqual([2, 2]);
    expect(hung.disk.requests).toHaveLength(8);
  });

  it('a unit that responds again gets the room that the others do not use', () => {
    const { budget, units } = session(2, { requestsMax: 8 });
    const [one, other] = [units[0]!, units[1]!];
    one.peer.send(...reads(20));
    expect(one.disk.requests).toHaveLength(6);
    for (let done = 0; done < 20; done += 1) one.disk.done('EIO');
    expect(one.peer.reading).toBe(true);
    expect([budget.requests, budget.bytes, budget.waitingCount]).toEqual([0, 0, 0]);
    expect([budget.requestsReserved, budget.bytesReserved]).toEqual([4, 2 * (1 << 28)]);
    expect(other.disk.requests).toHaveLength(0);
  });
});

describe('Budget of a session', () => {
  it('a unit alone may use the whole budget', () => {
    const { units } = session(1, { requestsMax: 10 });
    units[0]!.peer.send(...reads(20));
    expect(units[0]!.disk.requests).toHaveLength(10);
  });

  it('each unit may have one request of any size, however many units there are', () => {
    const { units } = session(20, { requestsMax: 8, bytesMax: KIB });
    for (const { peer } of units) peer.send(...reads(3, 64 * KIB));
    expect(units.map(({ disk }) => disk.requests.length)).toEqual(Array(20).fill(1));
  });

  it('the budget wakes the clients of several units round robin', () => {
    const { budget, units } = session(3, { requestsMax: 6, bytesMax: 1 << 20 });
    const order: number[] = [];
    let backlogBytes = 2 << 20;
    budget.backlogBytes = () => backlogBytes;
    for (const [index, { newPeer, disk }] of units.entries()) {
      disk.submit = (each) => {
        order.push(index);
        disk.requests.push(each);
        if (order.length % 3 === 0) backlogBytes = 2 << 20;
      };
      for (let client = 0; client < 3; client += 1) newPeer().send(request(FLUSH));
    }
    expect(budget.waitingCount).toBe(9);
    backlogBytes = 0;
    budget.backlogChanged();
    expect([...order].sort()).toEqual([0, 1, 2]);
  });

  it('the share of a unit that has ended goes to the others', () => {
    const { budget, units } = session(2, { requestsMax: 8 });
    const [ended, other] = [units[0]!, units[1]!];
    ended.peer.send(...reads(2));
    other.peer.send(...reads(20));
    expect(other.disk.requests).toHaveLength(6);
    ended.unitBudget.close();
    expect(other.disk.requests).toHaveLength(6);
    ended.disk.done('EIO');
    ended.disk.done('EIO');
    expect(other.disk.requests).toHaveLength(8);
    for (let left = 20; left > 0; left -= 1) other.disk.done('EIO');
    expect([budget.requests, budget.bytes, budget.requestsReserved]).toEqual([0, 0, 0]);
  });

  it('the limit may change while requests are pending', () => {
    const { budget, units } = session(2, { bytesMax: 64 * KIB });
    const [one, other] = [units[0]!, units[1]!];
    one.peer.send(...reads(100));
    expect(one.disk.requests).toHaveLength(12);
    budget.limitBytes(128 * KIB);
    expect(one.disk.requests).toHaveLength(24);
    budget.limitBytes(16 * KIB);
    other.peer.send(...reads(100));
    expect(other.disk.requests).toHaveLength(1);
    for (const { disk } of units) while (disk.requests.length > 0) disk.done('EIO');
    expect([budget.bytes, budget.bytesReserved]).toEqual([0, 8 * KIB]);
  });
});
