import { beforeEach, expect, it } from 'vitest';
import { SendBatch } from '../../src/io/send-batch.js';
import { TurnClock } from '../../src/io/turn-clock.js';

let nowMs = 0;
let reads = 0;
let flushes: SendBatch;
let clock: TurnClock;

beforeEach(() => {
  nowMs = 1000;
  reads = 0;
  flushes = new SendBatch();
  const system = {
    nowMs: () => {
      reads += 1;
      nowMs += 1;
      return nowMs;
    },
    at: () => () => undefined,
  };
  clock = new TurnClock(system, flushes);
});

it('the clock is read once in a turn, and only on request', () => {
  flushes.begin();
  expect(reads).toBe(0);
  const first = clock.nowMs();
  expect(clock.nowMs()).toBe(first);
  flushes.begin();
  expect(clock.nowMs()).toBe(first);
  flushes.end();
  expect(clock.nowMs()).toBe(first);
  flushes.end();
  expect(reads).toBe(1);
});

it('a flush at the end of a turn has the instant of that turn', () => {
  let seen = 0;
  flushes.begin();
  const first = clock.nowMs();
  flushes.add({
    flush: () => {
      seen = clock.nowMs();
    },
  });
  flushes.end();
  expect(seen).toBe(first);
});

it('bytes queued outside of turns are sent at an instant of their own', async () => {
  flushes.begin();
  const before = clock.nowMs();
  flushes.end();
  const seen: number[] = [];
  flushes.add({ flush: () => seen.push(clock.nowMs()) });
  await Promise.resolve();
  expect(seen).toEqual([before + 1]);
});

it('a sender that throws does not stop the clock', () => {
  flushes.begin();
  const before = clock.nowMs();
  flushes.add({
    flush: () => {
      throw new Error('a bug of ours');
    },
  });
  expect(() => flushes.end()).toThrow('a bug of ours');
  expect(clock.nowMs()).toBeGreaterThan(before);
});

it('another turn has its own instant', () => {
  flushes.begin();
  const first = clock.nowMs();
  flushes.end();
  flushes.begin();
  expect(clock.nowMs()).toBeGreaterThan(first);
  flushes.end();
  expect(reads).toBe(2);
});

it('each reading outside of turns is a new one', () => {
  const first = clock.nowMs();
  expect(clock.nowMs()).toBeGreaterThan(first);
  flushes.begin();
  const inTurn = clock.nowMs();
  flushes.end();
  expect(clock.nowMs()).toBeGreaterThan(inTurn);
});
