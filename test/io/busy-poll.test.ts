import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SendQueue } from '../../src/base/send-queue.js';
import { SlabPool } from '../../src/base/slab.js';
import { type NativeSocket, native, SocketEvent, shareSlabs } from '../../src/io/native.js';
import { realClock } from '../../src/io/real-clock.js';
import { SendBatch } from '../../src/io/send-batch.js';
import { SlabSocket, type SocketUser } from '../../src/io/slab-socket.js';

const pool = new SlabPool({ slabsMax: 64 });
shareSlabs(pool);
const flushes = new SendBatch();

/** Answers each message; a peer in this process has sent the next one by then. */
class Answerer implements SocketUser {
  received = 0;
  left = 0;
  onEnd = () => {};
  readonly queue = new SendQueue(pool);
  readonly socket: SlabSocket;

  constructor(
    fd: number,
    readonly peer: () => Socket | null,
  ) {
    this.socket = new SlabSocket({
      fd,
      pool,
      queue: this.queue,
      flushes,
      user: this,
      peer: 'client',
    });
  }

  bytesReceived(): boolean {
    this.received += 1;
    this.queue.pushCopy(Buffer.from('answer'));
    this.left -= 1;
    if (this.left > 0) this.peer()?.write('next');
    if (this.left === 0) this.onEnd();
    return true;
  }
  /** Resolves when `count` more messages have been received. */
  next(count: number): Promise<void> {
    this.left = count;
    return new Promise((resolve) => {
      this.onEnd = resolve;
    });
  }
  linkLost(): void {}
  sent(): void {}
}

let folder = '';
let listener: NativeSocket;
let client: Socket;
let answerers: Answerer[] = [];
let answerer: Answerer;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-poll-'));
  const fd = native.listenUnix(join(folder, 's'), 0o600);
  answerers = [];
  listener = new native.NativeSocket(fd, true, new Int32Array(3), (kind, value) => {
    if (kind !== SocketEvent.accepted) return;
    const isFirst = answerers.length === 0;
    answerers.push(new Answerer(value, () => (isFirst ? client : null)));
  });
  listener.watchReadable(true);
  client = connect(join(folder, 's')).resume();
  await vi.waitFor(() => expect(answerers).toHaveLength(1));
  answerer = answerers[0] as Answerer;
});

afterEach(async () => {
  native.setBusyPoll(0);
  for (const { socket } of answerers) socket.close();
  client.destroy();
  listener.close();
  await rm(folder, { recursive: true });
});

/** Turns of the event loop in which `count` messages were received and answered. */
async function turnsFor(count: number): Promise<number> {
  answerer.received = 0;
  const ended = answerer.next(count);
  const before = performance.nodeTiming.uvMetricsInfo.loopCount;
  client.write('first');
  await ended;
  expect(answerer.received).toBe(count);
  return performance.nodeTiming.uvMetricsInfo.loopCount - before;
}

/** Messages of a row: a short one, for both ways are tried in turns of 2 ms, once a second. */
const ROW = 40;
const MS_MAX = 2500;

/** The fewest turns of many rows, until one takes no more than `enough`. */
async function leastTurns(enough: number): Promise<number> {
  const startedAtMs = performance.now();
  let least = Number.POSITIVE_INFINITY;
  while (least > enough && performance.now() - startedAtMs < MS_MAX) {
    least = Math.min(least, await turnsFor(ROW));
  }
  return least;
}

describe.each([1, 1000])('busy polling for %i µs', { timeout: 20_000 }, (microseconds) => {
  it('the poll receives pending messages without a turn of the event loop for each', async () => {
    native.setBusyPoll(microseconds);
    expect(await leastTurns(ROW / 4)).toBeLessThanOrEqual(ROW / 4);
  });

  it('the event loop gets its turn after 16 receipts', async () => {
    native.setBusyPoll(microseconds);
    expect(await leastTurns(0)).toBeGreaterThan(1);
  });
});

/** The fewest turns in which six messages of another process are received, until one takes three. */
async function leastTurnsForSlowPeer(): Promise<number> {
  const others = answerers.length;
  const program = resolve('test/io/slow-peer.program.mjs');
  const child = spawn(process.execPath, [program, join(folder, 's')]);
  try {
    await vi.waitFor(() => expect(answerers).toHaveLength(others + 1));
    const soon = answerers[others] as Answerer;
    const startedAtMs = performance.now();
    let least = Number.POSITIVE_INFINITY;
    // Six messages are within a run of 2 ms.
    while (least > 3 && performance.now() - startedAtMs < 10_000) {
      const before = performance.nodeTiming.uvMetricsInfo.loopCount;
      await soon.next(6);
      least = Math.min(least, performance.nodeTiming.uvMetricsInfo.loopCount - before);
    }
    return least;
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}

it('busy polling waits for a message that comes soon', { timeout: 20_000 }, async () => {
  native.setBusyPoll(1000);
  expect(await leastTurnsForSlowPeer()).toBeLessThanOrEqual(3);
});

describe('the wait in the place of the event loop', () => {
  it('receives messages of another process without a turn for each', async () => {
    expect(await leastTurnsForSlowPeer()).toBeLessThanOrEqual(3);
  }, 20_000);

  it.each<[string, (ended: () => void) => void]>([
    ['a timer', (ended) => void setTimeout(ended, 20)],
    ['an immediate', (ended) => void setImmediate(ended)],
    ['a microtask', (ended) => queueMicrotask(ended)],
    ['a file system call', (ended) => void mkdtemp(join(folder, 'x')).then(ended)],
    ['a connection', (ended) => void connect(join(folder, 's')).once('connect', ended)],
    ['a process', (ended) => void spawn('true').once('exit', ended)],
    ['a signal', (ended) => void process.once('SIGUSR2', ended).kill(process.pid, 'SIGUSR2')],
  ])('%s that a message begins does not wait for the next message', async (_what, begin) => {
    const ended = new Promise<void>((end) => {
      vi.spyOn(answerer, 'bytesReceived').mockImplementation(() => {
        begin(end);
        return true;
      });
    });
    client.write('only');
    await ended;
  });
});

describe('the trial of busy polling', () => {
  it.each([
    ['twice as fast', 2000, 1000, 1],
    ['a tenth faster', 1100, 1000, 1],
    ['no faster', 1000, 1000, 0],
    ['an eighth slower', 880, 1000, 0],
    ['of no effect where nothing moves', 0, 0, 0],
  ])(
    'the share of time with busy polling fits a poll that is %s',
    (_what, bytesWith, bytesWithout, part) => {
      // 16 ms of every 1.06 s are for the other way.
      expect(native.simulateTrial(bytesWith, bytesWithout, 20_000, 0)).toBeCloseTo(part, 1);
    },
  );
});

describe('a thread that loses its processor while it polls', () => {
  // Of the time, 0.985 if it were not lost; the loss comes in a trial, or soon after one.
  it.each([4, 40])(
    'busy polling rests for up to 16 s if that happens after each %d ms',
    (lostMs) => {
      expect(native.simulateTrial(2000, 1000, 100_000, lostMs)).toBeLessThan(0.005);
    },
  );

  it('busy polling rests for a second if that happens every 20 s', () => {
    const part = native.simulateTrial(2000, 1000, 100_000, 20_000);
    expect(part).toBeGreaterThan(0.9);
    expect(part).toBeLessThan(0.97);
  });
});

it('a socket without data is polled once at most', async () => {
  native.setBusyPoll(1);
  await turnsFor(1);
  const before = native.counters().receives;
  for (let message = 0; message < 1000; message += 1) {
    await turnsFor(1);
    await new Promise(setImmediate);
  }
  // Each message is a receive, and a look that finds nothing another.
  expect(native.counters().receives - before).toBeLessThan(2010);
});

it('busy polling does not receive for a socket that has closed meanwhile', async () => {
  native.setBusyPoll(1000);
  const bytesReceived = vi.spyOn(answerer, 'bytesReceived').mockImplementation(() => {
    answerer.queue.pushCopy(Buffer.from('last'));
    flushes.add(answerer.socket);
    queueMicrotask(() => answerer.socket.close());
    client.write('too late');
    return true;
  });
  const closed = new Promise((resolve) => client.once('close', resolve));
  client.write('close');
  await closed;
  expect(bytesReceived).toHaveBeenCalledTimes(1);
});

it('the clock of a receipt stands while that is dealt with, and is that of the process', async () => {
  const before = performance.now();
  const seen = await new Promise<{ at: number[]; end: number }>((resolve) => {
    vi.spyOn(answerer, 'bytesReceived').mockImplementation(() => {
      const first = realClock.receiptMs?.() ?? Number.NaN;
      const start = performance.now();
      while (performance.now() - start < 3);
      resolve({ at: [first, realClock.receiptMs?.() ?? Number.NaN], end: start });
      return true;
    });
    client.write('first');
  });
  const [first = Number.NaN, second] = seen.at;
  expect(second).toBe(first);
  expect(first).toBeGreaterThanOrEqual(before - 0.1);
  expect(first).toBeLessThanOrEqual(seen.end + 0.1);
  await new Promise(setImmediate);
  const outside = realClock.receiptMs?.() ?? Number.NaN;
  expect(Math.abs(outside - performance.now())).toBeLessThan(1000);
  expect(outside).toBeGreaterThan(first);
});
