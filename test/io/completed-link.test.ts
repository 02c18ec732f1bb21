/** How a device's link ends if another process is to take the device over. */
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { Budget } from '../../src/bridge/budget.js';
import { NbdConnection } from '../../src/bridge/nbd-connection.js';
import { UnitBudget } from '../../src/bridge/unit-budget.js';
import { loadedAddon, shareSlabs } from '../../src/io/native.js';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';
import { NbdServerConnection } from '../../src/io/nbd-server-connection.js';
import { SendBatch } from '../../src/io/send-batch.js';
import { HeldDisk, request } from '../helpers/nbd-peer.js';

const addon = loadedAddon as NbdAddon;
const WRITE = 1;
const REPLY_BYTES = 16;
const pool = new SlabPool({ slabsMax: 64 });
shareSlabs(pool);

const write = (cookie: bigint) => request(WRITE, { cookie, payload: Buffer.alloc(512, 7) });

let disk: HeldDisk;
let kernel: Socket;
let link: NbdServerConnection;
let received: Buffer;
let errors: string[];
let closed: string[];

beforeEach(() => {
  disk = new HeldDisk();
  const [fd, kernelFd] = addon.socketPair();
  kernel = new Socket({ fd: kernelFd, allowHalfOpen: true });
  received = Buffer.alloc(0);
  errors = [];
  closed = [];
  kernel.on('data', (bytes) => {
    received = Buffer.concat([received, bytes]);
  });
  kernel.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code ?? ''));
  const budget = new UnitBudget(new Budget({ requestsMax: 64, bytesMax: 1 << 24 }));
  link = new NbdServerConnection({
    fd,
    resources: { pool, flushes: new SendBatch() },
    makeServer: (driver) => new NbdConnection({ pool, driver, disk: { device: disk, budget } }),
    onClosed: (_link, reason) => closed.push(reason),
  });
});
afterEach(() => {
  link.close('the test is over');
  kernel.destroy();
});

const arrived = (count: number) =>
  expect.poll(() => disk.requests.length, { interval: 2 }).toBe(count);
const cookies = () =>
  Array.from({ length: received.length / REPLY_BYTES }, (_, at) =>
    Number(received.readBigUInt64BE(at * REPLY_BYTES + 8)),
  );

describe('a link whose device is left to another process', () => {
  it('replies wait until every request that has come is carried out, and come all at once', async () => {
    kernel.write(write(1n));
    kernel.write(write(2n));
    await arrived(2);
    const ended = link.complete();
    disk.done();
    kernel.write(write(3n));
    await arrived(2);
    disk.done();
    await sleep(20);
    expect(received).toHaveLength(0);
    disk.done();
    await ended;
    await expect.poll(cookies, { interval: 2 }).toEqual([1, 2, 3]);
    expect(closed).toEqual(['the device is left to another process']);
  });

  it('a request that is sent after the replies fails with EPIPE at once', async () => {
    await link.complete();
    kernel.write(write(1n));
    await expect.poll(() => errors, { interval: 2 }).toEqual(['EPIPE']);
    expect(disk.requests).toHaveLength(0);
  });

  it('a request that was on its way when the last reply was made is still answered', async () => {
    kernel.write(write(1n));
    await arrived(1);
    const ended = link.complete();
    kernel.write(write(2n));
    disk.done();
    await arrived(1);
    expect(closed).toEqual([]);
    disk.done();
    await ended;
    await expect.poll(cookies, { interval: 2 }).toEqual([1, 2]);
  });

  it('a disk that is silent for a second delays no client: its earlier answers are sent', async () => {
    kernel.write(write(1n));
    kernel.write(write(2n));
    await arrived(2);
    const ended = link.complete();
    disk.done();
    await ended;
    await expect.poll(cookies, { interval: 2 }).toEqual([1]);
    disk.done();
  });

  it('half a request is no request: the link ends without it', async () => {
    kernel.write(write(1n).subarray(0, 100));
    await sleep(20);
    await link.complete();
    expect(closed).toEqual(['the device is left to another process']);
    expect(disk.requests).toHaveLength(0);
  });
});
