import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { SendQueue } from '../../src/base/send-queue.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { shareSlabs } from '../../src/io/native.js';
import { SendBatch } from '../../src/io/send-batch.js';
import { tcpTransportOpener } from '../../src/io/tcp-transport.js';
import type { Transport } from '../../src/io/transport.js';

const QUEUED_SLABS = 64;
const pool = new SlabPool({ slabsMax: 16 });
shareSlabs(pool);
const open = tcpTransportOpener(pool, new SendBatch());
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A peer that reads nothing until the test starts its reads. */
class StalledPeer {
  port = 0;
  socket: Socket | null = null;
  #bytes = 0;

  static async listen(): Promise<StalledPeer> {
    const peer = new StalledPeer();
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      peer.socket = socket;
      socket.on('data', (bytes) => {
        peer.#bytes += bytes.length;
      });
    });
    servers.push(server);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', () => done()));
    peer.port = (server.address() as { port: number }).port;
    return peer;
  }

  /** Bytes that the system still has for this peer; null when it has given the connection up. */
  async unsent(): Promise<number | null> {
    const port = this.port.toString(16).toUpperCase().padStart(4, '0');
    const sockets = (await readFile('/proc/net/tcp', 'utf8')).split('\n').slice(1);
    for (const words of sockets.map((line) => line.trim().split(/\s+/))) {
      const [, , remote, , queues] = words;
      if (remote?.endsWith(`:${port}`)) return Number.parseInt(queues?.split(':')[0] ?? '', 16);
    }
    return null;
  }

  /** Reads to the end, whichever that is: how many bytes there were. */
  async readAll(): Promise<number> {
    while (this.socket === null) await sleep(5);
    const { socket } = this;
    const end = Promise.race([once(socket, 'end'), once(socket, 'close')]);
    socket.on('error', () => socket.destroy());
    socket.resume();
    await end.catch(() => undefined);
    socket.destroy();
    return this.#bytes;
  }
}

/** A link that has sent to a stalled peer all that the system takes. */
async function stalledLink(peer: StalledPeer): Promise<{ link: Transport; queue: SendQueue }> {
  const queue = new SendQueue(pool);
  const slab = pool.acquire();
  for (let at = 0; at < QUEUED_SLABS; at += 1) queue.push(slab, 0, SLAB_BYTES);
  pool.release(slab);
  const link = open({ host: '127.0.0.1', port: peer.port }, queue, {
    linkOpened: () => undefined,
    bytesReceived: () => true,
    allSent: () => undefined,
    linkFailed: () => undefined,
  });
  while (link.bytesSentTotal === 0) await sleep(5);
  expect(link.bytesSentTotal).toBeLessThan(QUEUED_SLABS * SLAB_BYTES);
  return { link, queue };
}

describe('a connection to a target that does not read', () => {
  it('unsent bytes are dropped when the connection ends abruptly', async () => {
    const peer = await StalledPeer.listen();
    const { link, queue } = await stalledLink(peer);
    link.close('abrupt');
    const sent = link.bytesSentTotal;
    queue.clear();
    expect(await peer.unsent()).toBe(null);
    expect(await peer.readAll()).toBeLessThan(sent);
  });

  it('unsent bytes are dropped when the process is killed', async () => {
    const peer = await StalledPeer.listen();
    const program = resolve('test/io/stalled-sender.program.mjs');
    const child = spawn(process.execPath, [program, String(peer.port)]);
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const sent = Number(line.toString());
    expect(sent).toBeGreaterThan(0);
    expect(await peer.unsent()).toBeGreaterThan(0);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await peer.unsent()).toBe(null);
    expect(await peer.readAll()).toBeLessThan(sent);
  });

  it('unsent bytes still arrive when the connection ends in order', async () => {
    const peer = await StalledPeer.listen();
    const { link, queue } = await stalledLink(peer);
    link.close('orderly');
    const sent = link.bytesSentTotal;
    queue.clear();
    expect(await peer.unsent()).toBeGreaterThan(0);
    expect(await peer.readAll()).toBe(sent);
  });
});
