import { createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import type { ProductError } from '../../src/base/errors.js';
import { SendQueue } from '../../src/base/send-queue.js';
import { SlabPool } from '../../src/base/slab.js';
import { shareSlabs } from '../../src/io/native.js';
import { SendBatch } from '../../src/io/send-batch.js';
import { tcpTransportOpener } from '../../src/io/tcp-transport.js';
import type { TransportUser } from '../../src/io/transport.js';

const pool = new SlabPool({ slabsMax: 16 });
shareSlabs(pool);
const open = tcpTransportOpener(pool, new SendBatch());
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** Records the calls that it received, in order. */
class Witness implements TransportUser {
  readonly told: string[] = [];
  error: ProductError | null = null;
  linkOpened(): void {
    this.told.push('opened');
  }
  bytesReceived(_slab: number, buffer: Buffer, start: number, end: number): boolean {
    this.told.push(buffer.toString('latin1', start, end));
    return true;
  }
  allSent(): void {
    this.told.push('all sent');
  }
  linkFailed(error: ProductError): void {
    this.told.push('failed');
    this.error = error;
  }
  async hears(word: string): Promise<void> {
    while (!this.told.includes(word)) await sleep(5);
  }
}

async function listen(host: string, answer: string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.end(answer);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, host, () => resolve()));
  return (server.address() as { port: number }).port;
}

test('a connection is opened, receives bytes, and reports its end with the portal and an errno', async () => {
  const port = await listen('127.0.0.1', 'hello');
  const witness = new Witness();
  const link = open({ host: '127.0.0.1', port }, new SendQueue(pool), witness);
  await witness.hears('failed');
  link.close('abrupt');
  expect(witness.told).toEqual(['opened', 'hello', 'failed']);
  expect(witness.error).toMatchObject({ code: 'ERR_LINK', errno: 'ECONNRESET' });
  expect(witness.error?.message).toContain(`127.0.0.1:${port}`);
  expect(link.bytesReceivedTotal).toBe(5);
  expect(pool.inUse).toBe(0);
});

test('a name whose first address refuses is reached at the next one', async () => {
  const port = await listen('127.0.0.1', 'hello');
  const witness = new Witness();
  const link = open({ host: 'localhost', port }, new SendQueue(pool), witness);
  await witness.hears('hello');
  link.close('abrupt');
  expect(witness.told[0]).toBe('opened');
});

test.each([
  ['a port without a listener', '127.0.0.1', 'ECONNREFUSED'],
  ['a name that does not exist', 'no-such-host.invalid', /^(ENOTFOUND|EAI_AGAIN)$/],
  ['an address without a route', '255.255.255.255', /^(ENETUNREACH|EACCES|EINVAL)$/],
])('%s is a failed connection, not a crash', async (_what, host, errno) => {
  const witness = new Witness();
  open({ host, port: 9 }, new SendQueue(pool), witness);
  expect(witness.told).toEqual([]);
  await witness.hears('failed');
  expect(witness.error?.code).toBe('ERR_LINK');
  expect(witness.error).toMatchObject({ errno: expect.stringMatching(errno) });
});

test('a connection closed while it is being opened reports nothing, whenever that is', async () => {
  const port = await listen('127.0.0.1', 'hello');
  const witness = new Witness();
  for (let ticks = 0; ticks < 40; ticks += 1) {
    const link = open({ host: '127.0.0.1', port }, new SendQueue(pool), witness);
    for (let tick = 0; tick < ticks >> 2; tick += 1) await new Promise(setImmediate);
    const heard = witness.told.length;
    link.close('abrupt');
    await sleep(1);
    expect(witness.told.length).toBe(heard);
    link.close('abrupt');
  }
  expect(pool.inUse).toBe(0);
});

test.each(['127.0.0.1', '::1'])(
  'the addresses of a connection are those that the other side sees (%s)',
  async (host) => {
    let seen: unknown;
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      seen = { host: socket.remoteAddress, port: socket.remotePort };
      socket.write('hello');
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, host, () => resolve()));
    const { port } = server.address() as { port: number };
    const witness = new Witness();
    const link = open({ host, port }, new SendQueue(pool), witness);
    expect(link.addresses?.()).toBe(null);
    await witness.hears('hello');
    expect(link.addresses?.()).toEqual({ local: seen, remote: { host, port } });
    link.close('abrupt');
    expect(link.addresses?.()).toBe(null);
  },
);
