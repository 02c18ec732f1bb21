import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SendQueue } from '../../src/base/send-queue.js';
import { SlabPool } from '../../src/base/slab.js';
import { FlushList } from '../../src/io/flush-list.js';
import { type NativeSocket, native, SocketEvent, shareSlabs } from '../../src/io/native.js';
import { PumpedSocket, type SocketUser } from '../../src/io/pumped-socket.js';

const pool = new SlabPool({ slabsMax: 64 });
shareSlabs(pool);
const flushes = new FlushList();

/** Answers each message; its peer, in this process, has sent the next one by then. */
class Answerer implements SocketUser {
  received = 0;
  left = 0;
  onEnd = () => {};
  readonly queue = new SendQueue(pool);
  readonly socket: PumpedSocket;

  constructor(
    fd: number,
    readonly peer: () => Socket,
  ) {
    this.socket = new PumpedSocket({ fd, pool, queue: this.queue, flushes, user: this });
  }

  bytesReceived(): boolean {
    this.received += 1;
    this.queue.pushCopy(Buffer.from('answer'));
    this.left -= 1;
    if (this.left > 0) this.peer().write('next');
    else this.onEnd();
    return true;
  }
  linkLost(): void {}
  sent(): void {}
}

let folder = '';
let listener: NativeSocket;
let client: Socket;
let answerer: Answerer;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-poll-'));
  const fd = native.listenUnix(join(folder, 's'), 0o600);
  const made: Answerer[] = [];
  listener = new native.NativeSocket(fd, true, new Int32Array(3), (kind, value) => {
    if (kind === SocketEvent.accepted) made.push(new Answerer(value, () => client));
  });
  listener.watchReadable(true);
  client = connect(join(folder, 's')).resume();
  await vi.waitFor(() => expect(made).toHaveLength(1));
  answerer = made[0] as Answerer;
});

afterEach(async () => {
  native.setBusyPoll(0);
  answerer.socket.close();
  client.destroy();
  listener.close();
  await rm(folder, { recursive: true });
});

/** Turns of the event loop in which `count` messages were received and answered. */
async function turnsFor(count: number): Promise<number> {
  answerer.left = count;
  answerer.received = 0;
  const ended = new Promise<void>((resolve) => {
    answerer.onEnd = resolve;
  });
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

describe.each([1, 1000])('looking for answers for %i µs', { timeout: 20_000 }, (microseconds) => {
  it('receives what is there without a turn of the event loop for each', async () => {
    native.setBusyPoll(microseconds);
    expect(await leastTurns(ROW / 4)).toBeLessThanOrEqual(ROW / 4);
  });

  it('leaves the event loop its turn after 16 receipts', async () => {
    native.setBusyPoll(microseconds);
    expect(await leastTurns(0)).toBeGreaterThan(1);
  });
});

it('without it each answer has its turn of the event loop', async () => {
  expect(await leastTurns(0)).toBeGreaterThan(ROW * 0.9);
});

it('what is not there is looked for once at most', async () => {
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

it('does not receive for one that has closed in the meantime', async () => {
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
