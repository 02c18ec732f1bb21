/** The losses that a `serve` reports to clients of a socket after another one, however it ended. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import type { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { nbdsh } from '../helpers/served-disk.js';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const NAME = 'iqn.2024-01.com.example:kept';
const ME = 'iqn.2024-01.com.example:me';
const POWER_ON = { asc: 0x29, ascq: 0 };
const EIO = 5;
const WRITE_10 = 0x2a;
/** A user that the modes of files apply to, if the tests run as root. */
const USER = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : null;

let folder = '';
let disk: TargetDisk;
let other: TargetDisk;
let node: TargetNode;
let server: TargetServer;
let isids: string[] = [];
let events: string[] = [];
const processes: ChildProcess[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-losses-'));
  mkdirSync(join(folder, 'state'));
  for (const path of [folder, join(folder, 'state')]) {
    if (USER !== null) chownSync(path, USER.uid, USER.gid);
  }
  disk = TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' });
  other = TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile', serial: 'other' });
  [isids, events] = [[], []];
  ({ node, server } = await embeddedTarget({ name: NAME, luns: { 0: disk, 1: other } }));
  node.faults.onLogin = ({ isid, targetName }) => {
    if (targetName !== '') isids.push(isid);
    return undefined;
  };
});

afterEach(async () => {
  for (const child of processes.splice(0)) child.kill('SIGKILL');
  await server.close().catch(() => undefined);
  await rm(folder, { recursive: true });
});

/** Resolves when it is ready, to null when it has ended instead. */
async function serve(lun = '/0', flags: readonly string[] = []): Promise<ChildProcess | null> {
  const url = `iscsi://127.0.0.1:${server.port}/${NAME}${lun}`;
  // The rule that these tests are about holds where nothing is retained.
  const args = [CLI, 'serve', url, '--socket', socket(), '--json', '--initiator-name', ME];
  args.push('--retain-writes', 'never');
  const env = { ...process.env, HOME: folder, XDG_STATE_HOME: join(folder, 'state') };
  const child = spawn(process.execPath, [...args, ...flags], {
    ...(USER ?? {}),
    env,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  processes.push(child);
  return new Promise((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      events.push(line);
      if ((JSON.parse(line) as { event: string }).event === 'ready') resolve(child);
    });
    child.once('exit', () => resolve(null));
  });
}

async function end(child: ChildProcess | null, signal: NodeJS.Signals): Promise<void> {
  const ended = once(child!, 'exit');
  child!.kill(signal);
  await ended;
}

const socket = () => join(folder, 'nbd.sock');
const served = () => join(folder, 'state/iscsi-nbd/served');
const kept = (ending: string) => readdirSync(served()).filter((name) => name.endsWith(ending));
const pathOf = (ending: string) => join(served(), kept(ending)[0]!);
const warned = (what: RegExp) => events.some((line) => line.includes('warning') && what.test(line));

async function write(): Promise<RawNbd> {
  const client = await RawNbd.open(socket());
  const reply = await client.request(NBD.write, { offset: 0, data: Buffer.alloc(4096, 65) });
  expect(reply.error).toBe(0);
  return client;
}

/** The disk loses its cache, and a read of the client meets that it says so. */
async function loseWrites(client: RawNbd): Promise<void> {
  disk.powerLoss();
  node.raiseAttention(NAME, 0, POWER_ON);
  await client.request(NBD.read, { offset: 0, length: 4096 });
}

/** Errors of the first and second flush of a client that comes back. */
async function flushes(): Promise<number[]> {
  const client = await RawNbd.open(socket());
  return [(await client.request(NBD.flush)).error, (await client.request(NBD.flush)).error];
}

/** No process may write to the state directory; its files can be read. */
function protectState(): void {
  if (USER !== null) chownSync(served(), 0, 0);
  for (const name of readdirSync(served())) chmodSync(join(served(), name), 0o644);
  chmodSync(served(), 0o555);
}

describe('a lost write that a killed serve had acknowledged', () => {
  it('the next flush fails also after a start that found the target down', async () => {
    const first = await serve();
    await write();
    await end(first, 'SIGKILL');
    const { port } = server;
    await server.close();
    expect(await serve()).toBeNull();
    node.restart({ powerLoss: true });
    server = await startTargetServer(node, { port });
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
    expect(new Set(isids).size).toBe(1);
  });

  it('the next flush fails also after a start that did not find the LUN', async () => {
    const first = await serve();
    await loseWrites(await write());
    await end(first, 'SIGKILL');
    node.setLun(NAME, 0, null);
    expect(await serve()).toBeNull();
    node.setLun(NAME, 0, disk);
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
  });

  it('the next flush fails even if the state directory has become read-only', async () => {
    const first = await serve();
    await write();
    await end(first, 'SIGKILL');
    protectState();
    node.restart({ powerLoss: true });
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
    expect(new Set(isids).size).toBe(1);
    expect(warned(/cannot be written and stays as it is/)).toBe(true);
  });

  it('the next flush fails even if the disk comes back without a write cache', async () => {
    const first = await serve();
    await write();
    await end(first, 'SIGKILL');
    node.restart({ powerLoss: true });
    disk.writeCacheEnabled = false;
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
  });

  it('the next flush fails even if the loss record is broken', async () => {
    const first = await serve();
    await loseWrites(await write());
    await end(first, 'SIGKILL');
    writeFileSync(pathOf('.lost'), '{"sessionId"');
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
    expect(warned(/what the disks have lost cannot be read/)).toBe(true);
  });

  it('the next flush fails even if the identity record is broken', async () => {
    const first = await serve();
    await loseWrites(await write());
    await end(first, 'SIGKILL');
    writeFileSync(pathOf('.json'), '{');
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
    expect(warned(/the identity record .* is broken/)).toBe(true);
  });

  it('the next flush fails even if the write was retained, and serve was killed before it wrote it again', async () => {
    const flags = ['--retain-writes', 'auto'];
    const first = await serve('/0', flags);
    const client = await write();
    const isDue = new Promise<void>((resolve) => {
      node.faults.onCommand = ({ opcode }) => {
        if (opcode !== WRITE_10) return undefined;
        resolve();
        return 'ignore';
      };
    });
    loseWrites(client).catch(() => undefined);
    await isDue;
    await end(first, 'SIGKILL');
    node.faults.onCommand = undefined;
    await serve('/0', flags);
    expect(await flushes()).toEqual([EIO, 0]);
  });

  it('no flush fails if the write was retained, and serve was killed after it wrote it again', async () => {
    const flags = ['--retain-writes', 'auto'];
    const first = await serve('/0', flags);
    await loseWrites(await write());
    await end(first, 'SIGKILL');
    await serve('/0', flags);
    expect(await flushes()).toEqual([0, 0]);
  });

  it('one flush fails, not one more each time that another LUN comes back', async () => {
    const flags = ['--removal-latency', '1', '--reconnect-interval', '1'];
    const flush = ['try:', "  h.flush(); print('flushed')", 'except nbd.Error: print("failed")'];
    const uri = `nbd+unix:///0?socket=${socket()}`;
    const first = await serve('', flags);
    await nbdsh(uri, ["h.pwrite(b'A' * 4096, 0)"]);
    disk.powerLoss();
    node.raiseAttention(NAME, 0, POWER_ON);
    await nbdsh(uri, ['h.pread(4096, 0)']);
    await end(first, 'SIGKILL');
    await serve('', flags);
    expect(await nbdsh(uri, flush)).toContain('failed');
    expect(await nbdsh(uri, flush)).toContain('flushed');
    // The neighbour meets that the LUNs have changed.
    const isTold = async (event: string) => {
      await nbdsh(uri, ['h.pread(4096, 0)']);
      return events.some((line) => line.includes(`"${event}"`));
    };
    node.setLun(NAME, 1, null);
    await vi.waitUntil(() => isTold('deviceRemoved'), 20_000);
    node.setLun(NAME, 1, other);
    await vi.waitUntil(() => isTold('deviceAttached'), 20_000);
    expect(await nbdsh(uri, flush)).toContain('flushed');
  });
});

describe('a serve that ends in order', () => {
  it('a loss that was reported to no client is left to the next serve', async () => {
    const first = await serve();
    await loseWrites(await write());
    await end(first, 'SIGTERM');
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
    await end(processes.at(-1)!, 'SIGTERM');
    expect(readdirSync(served())).toEqual([]);
  });

  it('acknowledged writes are on the disk after an orderly end', async () => {
    const first = await serve();
    await write();
    await end(first, 'SIGTERM');
    node.restart({ powerLoss: true });
    await serve();
    expect(await flushes()).toEqual([0, 0]);
    const client = await RawNbd.open(socket());
    const { data } = await client.request(NBD.read, { offset: 0, length: 4096 });
    expect(data).toEqual(Buffer.alloc(4096, 65));
  });

  it('unflushed writes of an outage are left to the next serve as losses', async () => {
    const first = await serve();
    await write();
    const { port } = server;
    await server.close();
    await end(first, 'SIGTERM');
    node.restart({ powerLoss: true });
    server = await startTargetServer(node, { port });
    await serve();
    expect(await flushes()).toEqual([EIO, 0]);
  });
});

describe('a serve that was killed before a write was acknowledged', () => {
  it('no flush fails after a serve without acknowledged writes, though the disk reports a power on', async () => {
    await end(await serve(), 'SIGKILL');
    node.restart({ powerLoss: true });
    await serve();
    expect(await flushes()).toEqual([0, 0]);
  });
});

describe('a loss that cannot be recorded', () => {
  it('the loss is a warning of serve', async () => {
    await serve();
    const client = await write();
    protectState();
    await loseWrites(client);
    await vi.waitUntil(() => warned(/lost writes of LUN 0 cannot be written down/), 5000);
    expect(readFileSync(pathOf('.lost'), 'utf8')).toContain('"luns":[]');
  });
});
