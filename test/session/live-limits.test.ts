import { expect, test } from 'vitest';
import { Budget } from '../../src/bridge/budget.js';
import { DepthControl } from '../../src/bridge/depth-control.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';

test('more bytes for held requests let clients that wait go on at once', () => {
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

test('fewer bytes take nothing back: what is held stays, and new requests wait until it is less', () => {
  const budget = new Budget({ requestsMax: 10, bytesMax: 1000 });
  const unit = new UnitBudget(budget);
  unit.take(600);
  budget.limitBytes(500);
  expect(unit.hasRoom).toBe(false);
  unit.give(600);
  expect(unit.hasRoom).toBe(true);
});

test('another queue depth counts at once for a target that takes it', () => {
  const control = new DepthControl(32);
  control.limit(8);
  expect(control.depth).toBe(8);
  control.limit(128);
  expect(control.depth).toBe(128);
  expect(control.nextStepAtMs).toBe(Number.POSITIVE_INFINITY);
});

test('a target that has too much to do is not given more at once by a larger maximum', () => {
  const control = new DepthControl(32);
  control.congested(0, 32);
  expect(control.depth).toBe(24);
  control.limit(64);
  expect(control.depth).toBe(24);
  control.timeReached(1000);
  expect(control.depth).toBe(26);
  control.limit(16);
  expect(control.depth).toBe(16);
});
