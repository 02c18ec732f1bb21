import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SendQueue } from '../../src/base/send-queue.js';
import { SlabPool } from '../../src/base/slab.js';
import { shareSlabs } from '../../src/io/native.js';
import type { NbdSocketDriver } from '../../src/io/nbd-server-connection.js';
import { NbdSocketServer } from '../../src/io/nbd-socket.js';
import { SendBatch } from '../../src/io/send-batch.js';

const pool = new SlabPool({ slabsMax: 64 });
shareSlabs(pool);

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gone-peer-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** A server that does not read on after the first bytes, and what it hears. */
async function parkedClient() {
  const heard = { receipts: 0, bytes: 0 };
  let driver: NbdSocketDriver | null = null;
  let isParked = () => {};
  let isClosed = () => {};
  const parked = new Promise<void>((resolve) => {
    isParked = resolve;
  });
  const closed = new Promise<void>((resolve) => {
    isClosed = resolve;
  });
  const server = new NbdSocketServer({
    path: join(folder, 'nbd.sock'),
    resources: { pool, flushes: new SendBatch() },
    makeServer: (itsDriver) => {
      driver = itsDriver;
      return {
        queue: new SendQueue(pool),
        isHandshaking: false,
        isSettled: true,
        onSettled: null,
        bytesReceived: (_slab, _buffer, start, end) => {
          heard.receipts += 1;
          heard.bytes += end - start;
          itsDriver.setReading(false);
          isParked();
          return false;
        },
        repliesSent: () => undefined,
        linkClosed: () => isClosed(),
      };
    },
  });
  await server.listen();
  const socket = await new Promise<Socket>((resolve) => {
    const opening = connect(join(folder, 'nbd.sock'), () => resolve(opening));
  });
  socket.write('first');
  await parked;
  return { server, socket, heard, closed, goOn: () => driver?.setReading(true) };
}

it('a client that disconnects while it is not read ends at once, and its data is never read', async () => {
  const { server, socket, heard, closed } = await parkedClient();
  await new Promise<void>((resolve) => {
    socket.write('requests that nobody waits for any more', () => resolve());
  });
  socket.destroy();
  await closed;
  expect(heard).toEqual({ receipts: 1, bytes: 5 });
  await server.close('the test is over');
});

it('a client that stays connected and is read again has lost nothing', async () => {
  const { server, socket, heard, goOn } = await parkedClient();
  await new Promise<void>((resolve) => {
    socket.write('second', () => resolve());
  });
  goOn();
  await expect.poll(() => heard).toEqual({ receipts: 2, bytes: 11 });
  await server.close('the test is over');
  socket.destroy();
});
