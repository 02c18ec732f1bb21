import { describe, expect, it } from 'vitest';
import { DepthControl } from '../../src/bridge/depth-control.js';
import { whyAnotherDisk } from '../../src/bridge/identity-gate.js';
import { diskFacts } from '../helpers/block-client.js';

describe('the identity gate (INTERFACE.md, "Semantics")', () => {
  it.each([
    ['the same', {}],
    ['larger', { blockCount: 1 << 22 }],
    ['read-only', { readOnly: true }],
    ['with another firmware', { revision: '2' }],
    ['with one identifier more', { identifiers: ['eui.1', 'naa.3000000000000001'] }],
  ])('lets a disk pass that is %s', (_how, change) => {
    expect(whyAnotherDisk(diskFacts(), diskFacts(change))).toBeNull();
  });

  it.each([
    ['another identifier', { identifiers: ['naa.3000000000000002'] }],
    ['no identifier any more', { identifiers: [] }],
    ['another serial number', { serial: 'S2' }],
    ['another block size', { blockSizeBytes: 4096 }],
    ['fewer blocks', { blockCount: (1 << 21) - 1 }],
    ['another product name', { product: 'TAPE' }],
    ['another device type', { deviceType: 5 }],
  ])('stops a disk with %s, and says so', (_how, change) => {
    expect(whyAnotherDisk(diskFacts(), diskFacts(change))).toMatch(/^its /);
  });

  it('stops a disk that has an identifier where there was none', () => {
    const before = diskFacts({ identifiers: [] });
    expect(whyAnotherDisk(before, diskFacts())).toMatch(/identifier/);
    expect(whyAnotherDisk(before, diskFacts({ identifiers: [] }))).toBeNull();
  });
});

describe('queue depth', () => {
  it('falls by a quarter of what was in flight, once for each burst, and not below one', () => {
    const control = new DepthControl(128);
    control.congested(1000, 100);
    expect(control.depth).toBe(75);
    for (let at = 0; at < 50; at += 1) control.congested(1000 + at, 75);
    expect(control.depth).toBe(75);
    for (let at = 1; at < 100; at += 1) control.congested(1000 + at * 100, control.depth);
    expect(control.depth).toBe(1);
  });

  it('rises step by step when a second has passed without a sign, up to the maximum', () => {
    const control = new DepthControl(128);
    expect(control.nextStepAtMs).toBe(Number.POSITIVE_INFINITY);
    control.congested(1000, 40);
    expect([control.depth, control.nextStepAtMs]).toEqual([30, 2000]);
    control.timeReached(1999);
    expect(control.depth).toBe(30);
    let nowMs = 2000;
    for (; control.nextStepAtMs < Number.POSITIVE_INFINITY; nowMs += 1000) {
      control.timeReached(nowMs);
    }
    expect([control.depth, nowMs]).toEqual([128, 2000 + 25 * 1000]);
  });
});
