/** Paths that come from logins and from discovery, and how the next daemon has them again. */
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { MemoryFolder } from '../helpers/memory-folder.js';
import { nbdsh } from '../helpers/served-disk.js';
import { freePort } from '../helpers/tgt.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000 });
const NAME = 'iqn.2001-04.com.example:disk';
const MULTIPATH = ['--multipath', 'auto', '--reconnect-interval', '0.5'];

/** A target with a portal in each of these groups; on request the last one has no listener. */
async function target(groups: readonly number[], lastListens = true) {
  const disk = TargetDisk.ram({ sizeBytes: 16 << 20, writeCache: 'volatile' });
  const ports: number[] = [];
  for (const _group of groups) ports.push(await freePort());
  const portals = ports.map((port, at) => {
    return { address: '127.0.0.1', port, portalGroupTag: groups[at] ?? 1 };
  });
  const node = new TargetNode({
    targets: [{ name: NAME, luns: { 0: disk }, portals }],
    negotiation: { defaultTime2Wait: 0 },
  });
  const listening = lastListens ? ports : ports.slice(0, -1);
  const servers = await Promise.all(listening.map((port) => startTargetServer(node, { port })));
  return {
    node,
    portals: ports.map((port) => `127.0.0.1:${port}`),
    isids: () => node.sessions.map(({ isid }) => isid.toString('hex')).sort(),
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

/** Waits until the session has these states of paths, and shows it. */
async function withPaths(daemon: DaemonProcess, states: readonly string[]): Promise<SessionView> {
  let session = await daemon.json<SessionView>('session', NAME);
  const isSo = () => session.paths.map(({ state }) => state).join() === states.join();
  await daemon.until(async () => {
    session = await daemon.json<SessionView>('session', NAME);
    return isSo();
  });
  return session;
}

const uriOf = (daemon: DaemonProcess, { UniqueSessionId: id }: SessionView) =>
  `nbd+unix:///0?socket=${join(daemon.folder, 'nbd', `${id}.sock`)}`;
const READ = 'print(h.pread(4096, 4096)[:4].decode())';

describe('a disk of one target with two logins over two portals', () => {
  it('the disk is one, and the next daemon has it over both after a kill and a loss of the cache', async () => {
    await using found = await target([1, 1]);
    using memory = new MemoryFolder();
    await using daemon = new DaemonProcess({ retained: join(memory.path, 'retained') });
    await daemon.start();
    for (const portal of found.portals) await daemon.json('login', portal, NAME, ...MULTIPATH);
    const session = await withPaths(daemon, ['ready', 'ready']);
    expect(session.paths.map(({ portal }) => portal)).toEqual(found.portals);
    const isids = found.isids();
    expect(new Set(isids).size).toBe(2);
    const uri = uriOf(daemon, session);
    await nbdsh(uri, ["h.pwrite(b'kept' * 1024, 4096)"]);
    await daemon.stop('SIGKILL');
    found.node.restart({ powerLoss: true });
    await daemon.start('--wait-for', `${NAME}/0`);
    expect((await nbdsh(uri, [READ])).trim()).toBe('kept');
    const again = await withPaths(daemon, ['ready', 'ready']);
    expect(again.UniqueSessionId).toBe(session.UniqueSessionId);
    expect(again.paths.map(({ portal }) => portal)).toEqual(found.portals);
    expect(found.isids()).toEqual(isids);
    expect(daemon.log.match(/"event":"writesReplayed"/g)?.length).toBe(1);
    const second = again.paths[1]?.UniqueSessionId ?? '';
    expect((await daemon.run('logout', second)).code).toBe(0);
    expect((await daemon.json<SessionView>('session', NAME)).paths).toHaveLength(0);
    expect(found.node.sessions).toHaveLength(1);
    expect((await nbdsh(uri, [READ])).trim()).toBe('kept');
    expect((await daemon.run('logout', NAME)).code).toBe(0);
    expect(found.node.sessions).toHaveLength(0);
  });
});

describe('a login to a target that lists portals of other groups', () => {
  it('the disk has a path over each, and one that cannot be reached fails nothing', async () => {
    await using found = await target([1, 2, 3], false);
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.json('login', found.portals[0] ?? '', NAME, ...MULTIPATH);
    const session = await withPaths(daemon, ['ready', 'ready', 'down']);
    expect(session.paths.map(({ portal }) => portal)).toEqual(found.portals);
    const uri = uriOf(daemon, session);
    await nbdsh(uri, ["h.pwrite(b'kept' * 1024, 4096)"]);
    const isids = found.isids();
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${NAME}/0`);
    await withPaths(daemon, ['ready', 'ready', 'down']);
    expect(found.isids()).toEqual(isids);
    expect((await nbdsh(uri, [READ])).trim()).toBe('kept');
    // No option and no login named this portal.
    expect(daemon.log).not.toContain(`path ${found.portals[2]}: a login attempt failed`);
    expect((await daemon.run('logout', NAME)).code).toBe(0);
    expect(found.node.sessions).toHaveLength(0);
  });
});
