/**
 * Acknowledged writes that no flush covers, when the daemon is killed and the target loses its
 * cache: the next daemon writes them again.
 */
import { readdirSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import type { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { MemoryFolder } from '../helpers/memory-folder.js';
import { nbdsh } from '../helpers/served-disk.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const TARGET = 'iqn.2001-04.com.example:cached';
const FLUSH = ['try:', '  h.flush()', "  print('flushed')", 'except nbd.Error as e:'];

let disk: TargetDisk;
let node: TargetNode;
let server: TargetServer;
let memory: MemoryFolder;
let retained: string;

beforeEach(async () => {
  memory = new MemoryFolder();
  retained = join(memory.path, 'retained');
  disk = TargetDisk.ram({ sizeBytes: 16 << 20, writeCache: 'volatile' });
  ({ node, server } = await embeddedTarget({ name: TARGET, luns: { 0: disk } }));
});
afterEach(async () => {
  await server.close();
  memory[Symbol.dispose]();
});

const uriIn = (folder: string, sessionId: string) =>
  `nbd+unix:///0?socket=${join(folder, 'nbd', `${sessionId}.sock`)}`;
const flush = async (uri: string) => (await nbdsh(uri, [...FLUSH, '  print(e.errno)'])).trim();

/** Small writes, large ones and zeros, some of them over each other. */
const WRITES = [
  "h.pwrite(b'A' * 4096, 0)",
  "h.pwrite(b'B' * 1024, 1024)",
  "h.pwrite(b'C' * 300032 + b'D' * 100352 + b'E' * 13824, 1 << 20)",
  'h.zero(65536, (1 << 20) + 131072)',
  "h.pwrite(b'F' * 4096, (1 << 20) + 135168)",
];
const SUM =
  'import hashlib; print(hashlib.sha256(h.pread(4096, 0) + h.pread(414208, 1 << 20)).hexdigest())';
const sum = async (uri: string) => (await nbdsh(uri, [SUM])).trim();

/** Logs in and writes without a flush; resolves to the session and the present data. */
async function written(daemon: DaemonProcess, ...flags: string[]) {
  const login = ['login', server.portal, TARGET, ...flags];
  const { UniqueSessionId } = await daemon.json<{ UniqueSessionId: string }>(...login);
  const uri = uriIn(daemon.folder, UniqueSessionId);
  await nbdsh(uri, WRITES);
  return { uri, before: await sum(uri) };
}

async function targetGone(): Promise<number> {
  const { port } = server;
  await server.close();
  return port;
}

async function targetBackWithoutPower(port: number): Promise<void> {
  node.restart({ powerLoss: true });
  server = await startTargetServer(node, { port });
}

const started = (daemon: DaemonProcess) => daemon.start('--wait-for', `${TARGET}/0`);
/** Kinds of the files that exist. */
const kinds = () => readdirSync(retained).map((name) => name.replace(/^.*\./, ''));

describe('a daemon that is killed with acknowledged writes that no client flushed', () => {
  it('the next daemon writes them again to a disk that has lost them, and no flush fails', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri, before } = await written(daemon);
    await daemon.stop('SIGKILL');
    node.restart({ powerLoss: true });
    await started(daemon);
    expect(await sum(uri)).toBe(before);
    expect(await flush(uri)).toBe('flushed');
    expect(daemon.log).toContain('writesReplayed');
    node.restart({ powerLoss: true });
    expect(await sum(uri)).toBe(before);
    expect(kinds().sort()).toEqual(['index', 'slabs']);
  });

  it('nothing is lost if two more daemons are killed before they reach the target', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri, before } = await written(daemon, '--persistent');
    const port = await targetGone();
    await daemon.stop('SIGKILL');
    for (let round = 0; round < 2; round += 1) {
      await daemon.start();
      await daemon.stop('SIGKILL');
    }
    await targetBackWithoutPower(port);
    await started(daemon);
    expect(await sum(uri)).toBe(before);
    expect(await flush(uri)).toBe('flushed');
  });

  it('no older write comes over what the next daemon has acknowledged', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri } = await written(daemon);
    await daemon.stop('SIGKILL');
    await started(daemon);
    await nbdsh(uri, ["h.pwrite(b'Z' * 2048, 512)", "h.pwrite(b'Y' * 199680, (1 << 20) + 4096)"]);
    const newer = await sum(uri);
    await daemon.stop('SIGKILL');
    node.restart({ powerLoss: true });
    await started(daemon);
    expect(await sum(uri)).toBe(newer);
  });

  it('no flush fails if all was flushed before, though the disk has lost power', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri } = await written(daemon);
    expect(await flush(uri)).toBe('flushed');
    await daemon.stop('SIGKILL');
    node.restart({ powerLoss: true });
    await started(daemon);
    expect(await flush(uri)).toBe('flushed');
  });

  it('one flush fails if the bytes are gone, and the journal is set aside', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri } = await written(daemon);
    await daemon.stop('SIGKILL');
    for (const name of readdirSync(retained)) {
      if (name.endsWith('.slabs')) unlinkSync(join(retained, name));
    }
    node.restart({ powerLoss: true });
    await started(daemon);
    expect([await flush(uri), await flush(uri)]).toEqual(['EIO', 'flushed']);
    expect(daemon.log).toContain('are not written again, because');
    expect(kinds().sort()).toEqual(['index', 'slabs', 'stale']);
  });
});

describe('the files of retained writes', () => {
  it('the files of retained writes are for the user of the daemon alone', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    await written(daemon);
    const modes = readdirSync(retained).map((name) => statSync(join(retained, name)).mode & 0o777);
    expect([statSync(retained).mode & 0o777, ...modes]).toEqual([0o700, 0o600, 0o600]);
  });

  it('a logout leaves no journal, and the end of the daemon no file', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    await written(daemon);
    expect((await daemon.run('logout', TARGET)).code).toBe(0);
    expect(kinds()).toEqual(['slabs']);
    expect(await daemon.stop()).toBe(0);
    expect(kinds()).toEqual([]);
  });

  it('a daemon that ends in order leaves no file', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    await written(daemon, '--persistent');
    expect(await daemon.stop()).toBe(0);
    expect(kinds()).toEqual([]);
  });

  it('a daemon that ends during an outage leaves the journal of a persistent login', async () => {
    await using daemon = new DaemonProcess({ retained });
    await daemon.start();
    const { uri, before } = await written(daemon, '--persistent');
    const port = await targetGone();
    await daemon.until(async () => {
      return (await daemon.json<{ state: string }>('session', TARGET)).state === 'reconnecting';
    });
    expect(await daemon.stop()).toBe(0);
    expect(kinds().sort()).toEqual(['index', 'slabs']);
    await targetBackWithoutPower(port);
    await started(daemon);
    expect(await sum(uri)).toBe(before);
    expect(await flush(uri)).toBe('flushed');
  });
});
