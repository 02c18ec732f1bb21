import { describe, expect, it } from 'vitest';
import { diskFacts } from '../helpers/block-client.js';
import { diskBench, fixedSense } from '../helpers/scripted-port.js';

const WRITE = { operation: 'write', data: Buffer.alloc(512) } as const;
const BUSY = 0x08;
const TASK_SET_FULL = 0x28;

describe('retries of a command', () => {
  it.each([0x04, 0x05, 0x07, 0x08, 0x09])(
    'a command rejected for reason %i is not sent again (RFC 7143 §11.17.1 (Reason))',
    (reason) => {
      const { client, port } = diskBench(diskFacts());
      const answer = client.ask(WRITE);
      port.failed(port.take(), 0x100 | reason);
      expect([answer.answers, answer.errno, port.sent.length]).toEqual([1, 'EIO', 0]);
    },
  );

  it.each([0x02, 0x06, 0x0a])(
    'a command rejected for reason %i is sent again after a pause (RFC 7143 §11.17.1 (Reason))',
    (reason) => {
      const { client, port, clock } = diskBench(diskFacts());
      const answer = client.ask(WRITE);
      port.failed(port.take(), 0x100 | reason);
      clock.pass(50);
      port.good(port.take());
      expect([answer.answers, answer.errno]).toEqual([1, null]);
    },
  );

  it('a command that failed for a transient reason is sent again at once, 16 times at most', () => {
    const { client, port } = diskBench(diskFacts());
    const answer = client.ask(WRITE);
    let tries = 0;
    while (port.sent.length > 0) {
      tries += 1;
      port.check(port.take(), fixedSense(0xb, 0x00));
    }
    expect([tries, answer.answers, answer.errno]).toEqual([17, 1, 'EIO']);
  });

  it.each([
    ['BUSY', BUSY],
    ['TASK SET FULL', TASK_SET_FULL],
  ])(
    '%s leads to pauses that grow, for a minute, and to fewer commands in flight',
    (_name, status) => {
      const { client, port, clock, hooks } = diskBench(diskFacts());
      const startMs = clock.nowMs();
      const answer = client.ask(WRITE);
      const pausesMs: number[] = [];
      while (answer.answers === 0) {
        port.status(port.take(), status);
        const pauseMs = clock.timers > 0 ? clock.nextAtMs - clock.nowMs() : 0;
        pausesMs.push(pauseMs);
        clock.pass(pauseMs);
      }
      expect(pausesMs.slice(0, 4)).toEqual([50, 100, 200, 400]);
      expect(Math.max(...pausesMs)).toBe(2000);
      expect(clock.nowMs() - startMs).toBeGreaterThan(60_000);
      expect(clock.nowMs() - startMs).toBeLessThan(63_000);
      expect([answer.errno, hooks.congested]).toEqual(['EIO', pausesMs.length]);
    },
  );

  it.each([
    ['BUSY for 30 s', BUSY, 30_000],
    ['BUSY for just a minute', BUSY, 60_000],
    ['TASK SET FULL for 30 s', TASK_SET_FULL, 30_000],
  ])('a unit attention after the disk was %s is not an error', (_name, status, forMs) => {
    for (const attention of [fixedSense(6, 0x29, 0x00), fixedSense(6, 0x2a, 0x06)]) {
      const { client, port, clock } = diskBench(diskFacts());
      const answer = client.ask(WRITE);
      const readyAtMs = clock.nowMs() + forMs;
      while (clock.nowMs() < readyAtMs) {
        port.status(port.take(), status);
        clock.pass(clock.nextAtMs - clock.nowMs());
      }
      port.check(port.take(), attention);
      port.check(port.take(), fixedSense(0xb, 0x00));
      port.good(port.take());
      expect([answer.answers, answer.errno]).toEqual([1, null]);
    }
  });

  it.each([
    ['becoming ready', fixedSense(2, 0x04, 0x01)],
    ['changing its access state', fixedSense(2, 0x04, 0x0a)],
    ['not supported', fixedSense(5, 0x25, 0x00)],
  ])(
    'a command to a unit that is %s waits as long as the unit is held, with all its retries',
    (_name, notReady) => {
      const { client, port, clock, unit, hooks } = diskBench(diskFacts());
      hooks.onAttention = () => unit.queue.hold();
      const answer = client.ask(WRITE);
      for (let absence = 0; absence < 40; absence += 1) {
        port.check(port.take(), notReady);
        clock.pass(10_000);
        expect([answer.answers, port.sent.length, clock.timers]).toEqual([0, 0, 0]);
        unit.queue.release();
      }
      for (let tries = 0; tries < 16; tries += 1) port.check(port.take(), fixedSense(0xb, 0x00));
      port.good(port.take());
      expect([answer.answers, answer.errno]).toEqual([1, null]);
    },
  );

  it.each([
    ['goes on', false],
    ['is probed each time', true],
  ])(
    'an endless series of unit attentions is an error after a minute, if the unit %s',
    (_name, isHeld) => {
      const { client, port, clock, unit, hooks } = diskBench(diskFacts());
      if (isHeld) hooks.onAttention = () => unit.queue.hold();
      const startMs = clock.nowMs();
      const answer = client.ask(WRITE);
      let tries = 0;
      while (answer.answers === 0) {
        if (port.sent.length > 0) {
          tries += 1;
          port.check(port.take(), fixedSense(6, 0x2a, 0x09));
          unit.queue.release();
        } else {
          clock.pass(clock.nextAtMs - clock.nowMs());
        }
      }
      expect([answer.errno, tries < 60]).toEqual(['EIO', true]);
      expect(clock.nowMs() - startMs).toBeGreaterThan(60_000);
    },
  );

  it('a command that ends with an iSCSI response code and no SCSI status is retried after a pause', () => {
    const { client, port, clock } = diskBench(diskFacts());
    const answer = client.ask(WRITE);
    port.failed(port.take(), 1);
    expect([answer.answers, port.sent.length]).toEqual([0, 0]);
    clock.pass(50);
    port.good(port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a command is not retried while the identity of the disk is not confirmed', () => {
    const { client, port, clock, unit } = diskBench(diskFacts());
    const answer = client.ask(WRITE);
    port.status(port.take(), BUSY);
    unit.queue.hold();
    clock.pass(5000);
    expect([port.sent.length, unit.queue.heldRequests]).toEqual([0, 1]);
    unit.queue.release();
    port.good(port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a command in a retry pause fails when the disk is removed', () => {
    const { client, port, clock, unit } = diskBench(diskFacts());
    const answer = client.ask(WRITE);
    port.status(port.take(), BUSY);
    unit.queue.fail('removed');
    clock.pass(100);
    expect([answer.answers, answer.errno, answer.reason]).toEqual([1, 'EIO', 'removed']);
  });

  it('parts not yet sent are held while the unit is held', () => {
    const { client, port, unit } = diskBench(diskFacts({ limits: { maxTransferBlocks: 1 } }));
    const answer = client.ask({ operation: 'write', data: Buffer.alloc(20 * 512) });
    unit.queue.hold();
    for (let part = 0; part < 8; part += 1) port.good(port.take());
    expect([port.sent.length, unit.queue.heldRequests, answer.answers]).toEqual([0, 1, 0]);
    unit.queue.release();
    while (port.sent.length > 0) port.good(port.take());
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('a command that met a unit attention is held if the attention holds the unit', () => {
    const { client, port, unit, hooks } = diskBench(diskFacts());
    hooks.onAttention = () => unit.queue.hold();
    client.ask(WRITE);
    port.check(port.take(), fixedSense(6, 0x3f, 0x03));
    expect([port.sent.length, unit.queue.heldRequests]).toEqual([0, 1]);
  });
});
