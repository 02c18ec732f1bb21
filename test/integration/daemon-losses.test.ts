/** A daemon knows of unflushed writes that a daemon before it has acknowledged. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SessionRecords } from '../../src/supervisor/session-records.js';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { Supervisor } from '../../src/supervisor/supervisor.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import type { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { nbdsh } from '../helpers/served-disk.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const TARGET = 'iqn.2001-04.com.example:cached';
const INITIATOR = 'iqn.2001-04.com.example:host';
const FLUSH = ['try:', '  h.flush()', "  print('flushed')", 'except nbd.Error as e:'];

let disk: TargetDisk;
let node: TargetNode;
let server: TargetServer;

beforeEach(async () => {
  disk = TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' });
  ({ node, server } = await embeddedTarget({ name: TARGET, luns: { 0: disk } }));
});
afterEach(() => server.close());

const uriIn = (folder: string, sessionId: string) =>
  `nbd+unix:///0?socket=${join(folder, 'nbd', `${sessionId}.sock`)}`;

const flush = async (uri: string) => (await nbdsh(uri, [...FLUSH, '  print(e.errno)'])).trim();

/** Logs in and writes without a flush; resolves to the session's identifier. */
async function written(daemon: DaemonProcess, ...flags: string[]): Promise<string> {
  const login = ['login', server.portal, TARGET, ...flags];
  const { UniqueSessionId } = await daemon.json<{ UniqueSessionId: string }>(...login);
  await nbdsh(uriIn(daemon.folder, UniqueSessionId), ["h.pwrite(b'A' * 4096, 0)"]);
  return UniqueSessionId;
}

/** The target is away from now on. */
async function targetGone(): Promise<number> {
  const { port } = server;
  await server.close();
  return port;
}

async function targetBackWithoutPower(port: number): Promise<void> {
  node.restart({ powerLoss: true });
  server = await startTargetServer(node, { port });
}

function supervisorOf(daemon: DaemonProcess): Promise<Supervisor> {
  const directory = join(daemon.folder, 'nbd');
  mkdirSync(directory, { recursive: true });
  return Supervisor.make({
    surroundings: { environment: {}, stateDirectory: join(daemon.folder, 'state') },
    exportPlan: { kind: 'sockets', directory },
    loginsMax: 4,
    log: pino({ level: 'silent' }),
  });
}

function request(port: number, sessionType: 'data' | 'boot' = 'data') {
  return {
    targetName: TARGET,
    portal: { host: '127.0.0.1', port },
    sessionType,
    persistent: false,
    options: { initiatorName: INITIATOR },
  };
}

describe('acknowledged writes of a killed daemon that the disk has lost', () => {
  it.each([
    ['a persistent login', ['--persistent']],
    ['a login for this time', []],
  ])(
    'one flush fails though a daemon in between never reached the target: %s',
    async (_which, flags) => {
      await using daemon = new DaemonProcess();
      await daemon.start();
      const sessionId = await written(daemon, ...flags);
      await daemon.stop('SIGKILL');
      const port = await targetGone();
      await daemon.start();
      expect(await daemon.stop()).toBe(0);
      await targetBackWithoutPower(port);
      await daemon.start('--wait-for', `${TARGET}/0`);
      const uri = uriIn(daemon.folder, sessionId);
      expect([await flush(uri), await flush(uri)]).toEqual(['EIO', 'flushed']);
    },
  );

  it('one flush fails though a login that comes first does not reach the target', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const sessionId = await written(daemon);
    await daemon.stop('SIGKILL');
    const port = await targetGone();
    const supervisor = await supervisorOf(daemon);
    const refused = supervisor.login(request(port)).then(() => 'logged in', String);
    expect(await refused).toContain('ECONNREFUSED');
    await supervisor.close();
    await targetBackWithoutPower(port);
    await daemon.start('--wait-for', `${TARGET}/0`);
    expect(await flush(uriIn(daemon.folder, sessionId))).toBe('EIO');
  });

  it('one flush fails though a login comes before its record is restored', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const sessionId = await written(daemon);
    await daemon.stop('SIGKILL');
    node.restart({ powerLoss: true });
    const supervisor = await supervisorOf(daemon);
    const login = supervisor.login(request(server.port));
    await supervisor.restore();
    await login;
    expect(await flush(uriIn(daemon.folder, sessionId))).toBe('EIO');
    await supervisor.close();
  });
});

it('a daemon that ends during an outage leaves the losses of a persistent login to the next', async () => {
  await using daemon = new DaemonProcess();
  await daemon.start();
  const sessionId = await written(daemon, '--persistent');
  const port = await targetGone();
  await daemon.until(async () => {
    return (await daemon.json<SessionView>('session', TARGET)).state === 'reconnecting';
  });
  expect(await daemon.stop()).toBe(0);
  await targetBackWithoutPower(port);
  await daemon.start('--wait-for', `${TARGET}/0`);
  expect(await flush(uriIn(daemon.folder, sessionId))).toBe('EIO');
});

it('a session that is logged out before it reached the target leaves its ISID to the next', async () => {
  await using daemon = new DaemonProcess();
  await daemon.start();
  await written(daemon);
  const view = () => daemon.json<SessionView>('session', TARGET);
  const before = await view();
  await daemon.stop('SIGKILL');
  const port = await targetGone();
  await daemon.start();
  // It is ready before it has read its records: the session is not there at once.
  await daemon.until(async () => (await daemon.run('session', TARGET)).code === 0);
  await daemon.until(async () => (await view()).state === 'loggingIn');
  expect((await daemon.run('logout', TARGET)).code).toBe(0);
  server = await startTargetServer(node, { port });
  expect((await daemon.run('login', server.portal, TARGET)).code).toBe(0);
  expect((await view()).ISID).toBe(before.ISID);
});

describe('a daemon that exits', () => {
  it('the daemon flushes the acknowledged writes of socket clients before it exits', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await written(daemon, '--persistent');
    expect(disk.unflushedBytes).toBe(4096);
    expect(await daemon.stop()).toBe(0);
    expect(disk.unflushedBytes).toBe(0);
  });

  it('the daemon leaves a session within seconds though a disk hangs, which counts as not flushed', async () => {
    await using daemon = new DaemonProcess();
    const supervisor = await supervisorOf(daemon);
    node.setLun(TARGET, 1, TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' }));
    const { session } = await supervisor.login(request(server.port, 'boot'));
    node.faults.onCommand = ({ lun }) => (lun === 1 ? 'ignore' : undefined);
    const beganAtMs = Date.now();
    await supervisor.close();
    expect(Date.now() - beganAtMs).toBeLessThan(30_000);
    const records = new SessionRecords(join(daemon.folder, 'state'));
    expect(await records.find(session.record)).toMatchObject({
      active: true,
      handedOver: true,
      unflushedLuns: [1],
    });
    node.faults.onCommand = undefined;
    // If the process continues after that, its session has to be removed.
    await session.close({ force: true });
  });

  it('the daemon flushes a disk that had a cache when it was written and reports none now', async () => {
    await using daemon = new DaemonProcess();
    const supervisor = await supervisorOf(daemon);
    const { session } = await supervisor.login(request(server.port, 'boot'));
    const uri = uriIn(daemon.folder, session.sessionId);
    await nbdsh(uri, ["h.pwrite(b'A' * 4096, 0)"]);
    disk.writeCacheEnabled = false;
    node.raiseAttention(TARGET, 0, { asc: 0x2a, ascq: 0x01 });
    await nbdsh(uri, ['h.pread(4096, 0)']);
    await daemon.until(() => session.stack.units[0]?.facts.writeCacheEnabled === false);
    const { flushes } = node.stats;
    await session.leave();
    expect(node.stats.flushes).toBe(flushes + 1);
    // It is left to the next process, which is not to come.
    await session.close({ force: true });
    await supervisor.close();
  });
});
