import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { SendQueue } from '../../src/base/send-queue.js';
import { SlabPool } from '../../src/base/slab.js';
import { type NativeSocket, native, SocketEvent, shareSlabs } from '../../src/io/native.js';
import type { Peer } from '../../src/io/receive-buffer.js';
import { SendBatch } from '../../src/io/send-batch.js';
import { SlabSocket, type SocketUser } from '../../src/io/slab-socket.js';

const pool = new SlabPool({ slabsMax: 64 });
shareSlabs(pool);
const flushes = new SendBatch();

/** A socket's user that notes what came, and keeps it where it is while `parked`. */
class Reader implements SocketUser {
  parked = false;
  text = '';
  kept: Buffer | null = null;
  readonly socket: SlabSocket;

  slab = -1;

  constructor(fd: number, peer: Peer) {
    const queue = new SendQueue(pool);
    this.socket = new SlabSocket({ fd, pool, queue, flushes, user: this, peer });
  }

  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    const bytes = buffer.subarray(start, end);
    this.slab = slab;
    this.text += bytes.toString('latin1');
    if (this.parked) this.kept = bytes;
    return !this.parked;
  }
  linkLost(): void {}
  sent(): void {}
}

let folder = '';
/** Of the sockets that are accepted next. */
let peer: Peer = 'client';
let listener: NativeSocket;
const readers: Reader[] = [];
const clients: Socket[] = [];

beforeEach(async () => {
  peer = 'client';
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-window-'));
  const fd = native.listenUnix(join(folder, 's'), 0o600);
  listener = new native.NativeSocket(fd, true, new Int32Array(3), (kind, value) => {
    if (kind === SocketEvent.accepted) readers.push(new Reader(value, peer));
  });
  listener.watchReadable(true);
});

afterEach(async () => {
  for (const { socket } of readers.splice(0)) socket.close();
  for (const client of clients.splice(0)) client.destroy();
  listener.close();
  await rm(folder, { recursive: true });
});

/** Opens sockets until there are `count`. */
async function opened(count: number): Promise<void> {
  for (let index = readers.length; index < count; index += 1) {
    clients.push(connect(join(folder, 's')));
    await vi.waitFor(() => expect(readers).toHaveLength(index + 1));
  }
}

it('idle sockets hold no memory of their own', async () => {
  await opened(20);
  clients.forEach((client, index) => {
    client.write(`hello ${index};`.repeat(1000));
  });
  await vi.waitFor(() => {
    readers.forEach((reader, index) => {
      expect(reader.text).toBe(`hello ${index};`.repeat(1000));
    });
  });
  expect(pool.inUse).toBe(1);
});

it('what targets send does not lie in the memory that a write of a client keeps', async () => {
  await opened(1);
  peer = 'target';
  await opened(2);
  const [client, target] = readers as [Reader, Reader];
  for (const text of ['written', 'read']) {
    for (const socket of clients) socket.write(text);
    await vi.waitFor(() => {
      expect(client.text).toMatch(new RegExp(`${text}$`));
      expect(target.text).toMatch(new RegExp(`${text}$`));
    });
    expect(client.slab).not.toBe(target.slab);
  }
  expect(pool.inUse).toBe(2);
});

it('no memory is held without sockets', async () => {
  await opened(3);
  for (const { socket } of readers) socket.close();
  expect(pool.inUse).toBe(0);
});

it('bytes that are not yet used stay unchanged while other sockets receive', async () => {
  await opened(2);
  const [first, second] = readers as [Reader, Reader];
  first.parked = true;
  clients[0]?.write('the first');
  await vi.waitFor(() => expect(first.text).toBe('the first'));
  first.socket.setReading(false);
  for (let round = 1; round <= 20; round += 1) {
    clients[1]?.write('x'.repeat(100_000));
    await vi.waitFor(() => expect(second.text).toHaveLength(round * 100_000));
  }
  expect(first.kept?.toString()).toBe('the first');
  first.parked = false;
  first.socket.setReading(true);
  clients[1]?.write('y');
  await vi.waitFor(() => expect(second.text).toHaveLength(2_000_001));
  expect(pool.inUse).toBe(1);
});

it('a socket that closes with unused bytes releases them', async () => {
  await opened(2);
  const [first, second] = readers as [Reader, Reader];
  first.parked = true;
  clients[0]?.write('the first');
  await vi.waitFor(() => expect(first.text).toBe('the first'));
  first.socket.close();
  second.socket.close();
  expect(pool.inUse).toBe(0);
});
