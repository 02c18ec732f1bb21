import { expect, test } from 'vitest';
import { Budget } from '../../src/bridge/budget.js';
import { QueueDepthControl } from '../../src/bridge/queue-depth-control.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';

test('an increase of heldBytesMax lets waiting clients continue at once', () => {
  const budget = new Budget({ requestsMax: 10, bytesMax: 1000 });
  const unit = new UnitBudget(budget);
  unit.take(1000);
  let resumed = 0;
  unit.whenRoom(() => {
    resumed += 1;
  });
  budget.limitBytes(500);
  expect([unit.hasRoom, resumed]).toEqual([false, 0]);
  budget.limitBytes(2000);
  expect([unit.hasRoom, resumed]).toEqual([true, 1]);
});

test('a decrease of heldBytesMax keeps held requests, and new ones wait until there is room', () => {
  const budget = new Budget({ requestsMax: 10, bytesMax: 1000 });
  const unit = new UnitBudget(budget);
  unit.take(600);
  budget.limitBytes(500);
  expect(unit.hasRoom).toBe(false);
  unit.give(600);
  expect(unit.hasRoom).toBe(true);
});

test('a new queue depth applies at once if the target is not congested', () => {
  const control = new QueueDepthControl(32);
  control.limit(8);
  expect(control.depth).toBe(8);
  control.limit(128);
  expect(control.depth).toBe(128);
  expect(control.nextStepAtMs).toBe(Number.POSITIVE_INFINITY);
});

test('a congested target gets no more commands at once by a larger maximum', () => {
  const control = new QueueDepthControl(32);
  control.congested(0, 32);
  expect(control.depth).toBe(24);
  control.limit(64);
  expect(control.depth).toBe(24);
  control.timeReached(1000);
  expect(control.depth).toBe(26);
  control.limit(16);
  expect(control.depth).toBe(16);
});
