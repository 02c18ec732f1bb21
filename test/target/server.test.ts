import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { INITIATOR, NAME, text } from './raw-initiator.js';

let server: TargetServer;
const sockets: Socket[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close();
});

async function start(): Promise<TargetNode> {
  const luns = { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) };
  const node = new TargetNode({ targets: [{ name: NAME, luns }] });
  server = await startTargetServer(node);
  return node;
}

function dial(): Socket {
  const socket = connect(server.port, server.host);
  socket.on('error', () => {});
  sockets.push(socket);
  return socket;
}

/** One whole Login Request to the full feature phase. */
function loginRequest(): Buffer {
  const data = text(`InitiatorName=${INITIATOR}`, `TargetName=${NAME}`);
  const header = Buffer.alloc(48);
  header[0] = 0x43;
  header[1] = 0x87;
  header.writeUIntBE(data.length, 5, 3);
  return Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]);
}

async function loggedIn(): Promise<Socket> {
  const socket = dial();
  socket.write(loginRequest());
  const [answer] = (await once(socket, 'data')) as [Buffer];
  expect([answer[0], answer[36]]).toEqual([0x23, 0]);
  return socket;
}

/** Settles with the first event: data, or the end of the link (a reset is one, too). */
const next = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    socket.once('data', () => resolve('data'));
    socket.once('close', () => resolve('close'));
  });

describe('the target’s socket', () => {
  it('a dropped connection is closed, and its session ends', async () => {
    const node = await start();
    const socket = await loggedIn();
    expect(node.stats.currentSessions).toBe(1);
    server.dropConnections();
    expect(await next(socket)).toBe('close');
    expect(node.stats.currentSessions).toBe(0);
  });

  it('a connection that the initiator closes ends its session', async () => {
    const node = await start();
    const socket = await loggedIn();
    socket.end();
    expect(await next(socket)).toBe('close');
    await expect.poll(() => node.stats.currentSessions).toBe(0);
  });

  it('a server that stops listening keeps its connections, and listens again on its port', async () => {
    await start();
    const { port } = server;
    const kept = await loggedIn();
    await server.stopListening();
    const refused = dial();
    const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNREFUSED');
    expect(kept.destroyed).toBe(false);
    await server.listen();
    expect(server.port).toBe(port);
    await loggedIn();
  });

  it('a paused server resets new connections or leaves them without an answer', async () => {
    const node = await start();
    server.pauseAccept('refuse');
    expect(await next(dial())).toBe('close');
    server.pauseAccept('hold');
    const held = dial();
    await once(held, 'connect');
    held.write(loginRequest());
    server.resumeAccept();
    await loggedIn();
    expect(node.stats.logins).toBe(1);
  });

  it('a frozen server sends nothing and drops nothing until it thaws', async () => {
    const node = await start();
    const socket = await loggedIn();
    server.freeze();
    const nop = Buffer.alloc(48);
    nop[0] = 0x40;
    nop[1] = 0x80;
    nop.writeUInt32BE(7, 16);
    nop.writeUInt32BE(0xffffffff, 20);
    socket.write(nop);
    node.connections[0]?.sendNop();
    // A second link shows that the loop has turned: TCP connects and nothing is answered.
    await once(dial(), 'connect');
    expect(socket.bytesRead).toBeGreaterThan(0);
    const before = socket.bytesRead;
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.bytesRead).toBe(before);
    server.thaw();
    await expect.poll(() => socket.bytesRead).toBe(before + 96);
  });
});
