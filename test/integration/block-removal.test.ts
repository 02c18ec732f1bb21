import { expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { serveEmbedded, serveUrl } from '../helpers/served.js';

const MIB = 1 << 20;
const EIO = 5;
const TEST_UNIT_READY = 0x00;
/** More than the socket takes at a time, less than the server keeps for one client. */
const READS = 24;

it('a slow client gets its pending replies before its export is removed', async () => {
  await using served = await serveEmbedded({ sizeBytes: 32 * MIB });
  for (let at = 0; at < READS; at += 1) served.disk.write(at * MIB, Buffer.alloc(MIB, at + 1));
  const client = await RawNbd.open(served.socket);
  client.pause();
  const reads = Array.from({ length: READS }, (_, at) =>
    client.request(NBD.read, { offset: at * MIB, length: MIB }),
  );
  // Another client's answer comes after theirs: the target does its commands in order.
  const other = await RawNbd.open(served.socket);
  expect((await other.request(NBD.read, { offset: 0, length: 512 })).error).toBe(0);
  const closed = served[Symbol.asyncDispose]();
  client.resume();
  for (const [at, read] of reads.entries()) {
    const { error, data } = await read;
    expect(error).toBe(0);
    expect(data.equals(Buffer.alloc(MIB, at + 1))).toBe(true);
  }
  await closed;
});

it('a client that reads nothing keeps its export for a second at most', async () => {
  await using served = await serveEmbedded({ sizeBytes: 32 * MIB });
  const client = await RawNbd.open(served.socket);
  client.pause();
  const reads = Array.from({ length: READS }, (_, at) =>
    client.request(NBD.read, { offset: at * MIB, length: MIB }),
  );
  const other = await RawNbd.open(served.socket);
  await other.request(NBD.read, { offset: 0, length: 512 });
  const startMs = performance.now();
  await served[Symbol.asyncDispose]();
  expect(performance.now() - startMs).toBeLessThan(15_000);
  client.close();
  await Promise.all(reads);
});

it('held requests of a removed export fail with EIO', async () => {
  await using served = await serveEmbedded();
  const client = await RawNbd.open(served.socket);
  await served.server.close();
  const writes = Array.from({ length: 8 }, (_, at) =>
    client.request(NBD.write, { offset: at * 4096, data: Buffer.alloc(4096) }),
  );
  // The session has to notice first: what is in flight is held then.
  const isHeld = () =>
    served.events.some((event) => event.event === 'sessionState' && event.to === 'reconnecting');
  await expect.poll(isHeld).toBe(true);
  await served[Symbol.asyncDispose]();
  for (const write of writes) expect((await write).error).toBe(EIO);
});

it('a missing LUN is probed again and again, and the others are left alone', async () => {
  const name = 'iqn.2001-04.com.example:two';
  const luns = {
    0: TargetDisk.ram({ sizeBytes: MIB, serial: 'A' }),
    1: TargetDisk.ram({ sizeBytes: MIB, serial: 'B' }),
  };
  const { node, server, url } = await embeddedTarget({ name, luns });
  const served = await serveUrl(url, {
    reconnectIntervalSeconds: 0.1,
  });
  const looks = [0, 0];
  node.faults.onCommand = ({ lun, opcode }) => {
    if (opcode === TEST_UNIT_READY) looks[lun] = (looks[lun] ?? 0) + 1;
    return undefined;
  };
  node.setLun(name, 1, null);
  await served.run(
    'qemu-io',
    '-f',
    'raw',
    '-c',
    'read 0 4k',
    `nbd+unix:///0?socket=${served.socket}`,
  );
  await expect.poll(() => looks[1], { timeout: 15_000 }).toBeGreaterThan(12);
  expect(looks[0]).toBeLessThan(6);
  await served[Symbol.asyncDispose]();
  await server.close();
});
