/** A daemon with workers: where its sessions are, and what becomes of them when a worker dies. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type {
  DeviceView,
  SessionView,
  StatisticsView,
} from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { MemoryFolder } from '../helpers/memory-folder.js';
import { published } from '../helpers/published-schema.js';
import { nbdsh } from '../helpers/served-disk.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
/** Node 24 may end the whole process if a thread has no heap left: that is a take-over, as after a kill. */
const HEAP_ENDS_THE_PROCESS = Number(process.versions.node.split('.')[0]) >= 24;
const CRASH = fileURLToPath(new URL('../helpers/worker-crash.mjs', import.meta.url));
const name = (number: number) => `iqn.2001-04.com.example:disk${number}`;
const NAA = '6001405aaaaaaaaabbbbbbbbcccccccc';
const TIMERS = ['--reconnect-interval', '0.5'];

let node: TargetNode;
let server: TargetServer;
let memory: MemoryFolder;
let disks: readonly TargetDisk[];

/** Targets 0 to 3 with a disk each, of which 4 and 0 have the same one. */
beforeEach(async () => {
  memory = new MemoryFolder();
  const disk = () => TargetDisk.ram({ sizeBytes: 8 << 20, writeCache: 'volatile' });
  const shared = TargetDisk.ram({ sizeBytes: 8 << 20, writeCache: 'volatile', naa: NAA });
  disks = [shared, disk(), disk(), disk(), shared];
  node = new TargetNode({
    targets: disks.map((each, number) => ({ name: name(number), luns: { 0: each } })),
    negotiation: { defaultTime2Wait: 0 },
  });
  server = await startTargetServer(node);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
  memory[Symbol.dispose]();
});

async function started(...flags: readonly string[]): Promise<DaemonProcess> {
  mkdirSync(join(memory.path, 'crash'));
  vi.stubEnv('ISCSI_NBD_CRASH', join(memory.path, 'crash'));
  vi.stubEnv('NODE_OPTIONS', `--import=${CRASH} --max-old-space-size=64`);
  const daemon = new DaemonProcess({ retained: join(memory.path, 'retained') });
  await daemon.start('--workers', '2', ...flags);
  vi.unstubAllEnvs();
  return daemon;
}

const login = (daemon: DaemonProcess, number: number) =>
  daemon.json<{ UniqueSessionId: string; session: SessionView }>(
    ...['login', server.portal, name(number), ...TIMERS],
  );

const sessionOf = (daemon: DaemonProcess, number: number) =>
  daemon.json<SessionView>('session', name(number));

const crash = (worker: number | undefined, way: string) =>
  writeFileSync(join(memory.path, 'crash', String(worker)), way);

const uriOf = (daemon: DaemonProcess, sessionId: string) =>
  `nbd+unix:///0?socket=${join(daemon.folder, 'nbd', `${sessionId}.sock`)}`;

describe('a daemon with two workers', () => {
  it('the sessions are spread, and each view names the worker of each', async () => {
    await using daemon = await started('--metrics-listen', join(memory.path, 'metrics'));
    for (const number of [0, 1, 2, 3]) await login(daemon, number);
    const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
    published('sessions').parse({ sessions });
    expect(sessions.map(({ worker }) => worker).sort()).toEqual([0, 0, 1, 1]);
    const [statistics] = (await daemon.call([{ method: 'SessionStatistics', params: {} }])) as [
      { statistics: StatisticsView[] },
    ];
    published('statistics').parse(statistics);
    expect(statistics.statistics.every(({ workerLoad }) => workerLoad !== undefined)).toBe(true);
    expect((await daemon.run('sessions')).out).toMatch(/^SESSION .* WORKER .* TARGET/);
    expect((await daemon.run('top', '--count', '1')).out).toMatch(/^SESSION .* WORKER/);
    const threads = readdirSync(`/proc/${daemon.pid}/task`);
    expect(threads.length).toBeGreaterThan(2);
    expect((await daemon.run('logout', '--all')).code).toBe(0);
    expect(node.sessions).toEqual([]);
    expect(await daemon.stop()).toBe(0);
  });

  it.each(HEAP_ENDS_THE_PROCESS ? ['throw'] : ['throw', 'heap'])(
    'the sessions of a worker that dies (%s) come back with their writes, and others notice nothing',
    async (way) => {
      await using daemon = await started();
      const [first, second] = [await login(daemon, 1), await login(daemon, 2)];
      expect(first.session.worker).not.toBe(second.session.worker);
      const uri = uriOf(daemon, first.UniqueSessionId);
      await nbdsh(uri, ["h.pwrite(b'kept' * 4096, 4096)"]);
      // The target has lost unflushed writes, and the worker that knows of it dies.
      disks[1]?.powerLoss();
      crash(first.session.worker, way);
      await daemon.until(() => daemon.log.includes('taken over by the next thread'));
      await daemon.until(async () => {
        const { devices } = await daemon.json<{ devices: DeviceView[] }>('devices');
        return devices.filter(({ socket }) => socket !== null).length === 2;
      });
      expect(await sessionOf(daemon, 1)).toMatchObject({
        UniqueSessionId: first.UniqueSessionId,
        ISID: first.session.ISID,
        worker: first.session.worker,
      });
      expect(await sessionOf(daemon, 2)).toMatchObject({ logins: 1, outages: 0 });
      expect(
        (await nbdsh(uri, ['print(h.pread(16384, 4096)[-4:].decode())', 'h.flush()'])).trim(),
      ).toBe('kept');
      expect(await daemon.stop()).toBe(0);
    },
  );

  it('a session that has the disk of another is logged in where that one is, also after a kill', async () => {
    await using daemon = await started();
    const [owner] = [await login(daemon, 0), await login(daemon, 1), await login(daemon, 2)];
    // The worker that has less to do would be the other one.
    await login(daemon, 4);
    const pathsOf = async () => (await sessionOf(daemon, 0)).paths.map(({ state }) => state);
    await daemon.until(async () => (await pathsOf()).join() === 'ready,ready');
    expect((await sessionOf(daemon, 4)).worker).toBe(owner.session.worker);
    expect((await sessionOf(daemon, 4)).devices).toEqual([]);
    await daemon.stop('SIGKILL');
    await daemon.start('--workers', '2', '--wait-for', `${name(0)}/0,${name(1)}/0,${name(2)}/0`);
    await daemon.until(async () => (await pathsOf()).join() === 'ready,ready');
    expect((await sessionOf(daemon, 4)).worker).toBe((await sessionOf(daemon, 0)).worker);
    expect((await daemon.run('logout', '--all')).code).toBe(0);
  });

  it('the processors of the daemon are shared out to its workers', async () => {
    const allowed = readFileSync('/proc/self/status', 'utf8').match(
      /Cpus_allowed_list:\s*(\S+)/,
    )?.[1];
    await using daemon = await started('--cpu-affinity', allowed ?? '0');
    const tasks = readdirSync(`/proc/${daemon.pid}/task`);
    const lists = tasks.map(
      (task) =>
        readFileSync(`/proc/${daemon.pid}/task/${task}/status`, 'utf8').match(
          /Cpus_allowed_list:\s*(\S+)/,
        )?.[1],
    );
    const own = new Set(lists.filter((list) => list !== allowed));
    expect(own.size).toBe(allowed === '0' ? 0 : 2);
  });
});
