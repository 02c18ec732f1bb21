/** One disk behind targets of different names: their logins are paths of it. */
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
const A = 'iqn.2001-04.com.example:a';
const B = 'iqn.2001-04.com.example:b';
const NAA = '6001405aaaaaaaaabbbbbbbbcccccccc';
const TIMERS = ['--reconnect-interval', '0.5', '--path-check', '0.2'];
const READ = 'print(h.pread(4096, 4096)[:4].decode())';

const diskOf = (more: { readonly naa?: string; readonly serial?: string } = {}) =>
  TargetDisk.ram({ sizeBytes: 16 << 20, writeCache: 'volatile', naa: NAA, ...more });

type Disks = Readonly<Record<number, TargetDisk>>;

/** Two targets of one node with these disks by LUN, and a portal that both have. */
async function targets(a: Disks, b: Disks) {
  const node = new TargetNode({
    targets: [
      { name: A, luns: a },
      { name: B, luns: b },
    ],
    negotiation: { defaultTime2Wait: 0 },
  });
  const server = await startTargetServer(node);
  const { portal } = server;
  return {
    node,
    portal,
    namesOf: () => node.sessions.map(({ target }) => target?.name).sort(),
    [Symbol.asyncDispose]: () => server.close(),
  };
}

const sessionOf = (daemon: DaemonProcess, target: string) =>
  daemon.json<SessionView>('session', target);

/** Waits until the disk of the target has these states of paths. */
async function withPaths(daemon: DaemonProcess, states: readonly string[], target = A) {
  let session = await sessionOf(daemon, target);
  await daemon.until(async () => {
    session = await sessionOf(daemon, target);
    return session.paths.map(({ state }) => state).join() === states.join();
  });
  return session;
}

const uriOf = (daemon: DaemonProcess, { UniqueSessionId: id }: SessionView, lun = 0) =>
  `nbd+unix:///${lun}?socket=${join(daemon.folder, 'nbd', `${id}.sock`)}`;

describe('a disk that two targets of different names have', () => {
  it('the disk is one with a path over each, also for the next daemon after a kill', async () => {
    const disk = diskOf();
    await using found = await targets({ 0: disk }, { 3: disk });
    using memory = new MemoryFolder();
    await using daemon = new DaemonProcess({ retained: join(memory.path, 'retained') });
    await daemon.start();
    for (const name of [A, B]) await daemon.json('login', found.portal, name, ...TIMERS);
    const session = await withPaths(daemon, ['ready', 'ready']);
    expect(session.paths.map(({ TargetiSCSIName }) => TargetiSCSIName)).toEqual([A, B]);
    expect((await sessionOf(daemon, B)).devices).toEqual([]);
    const uri = uriOf(daemon, session);
    await nbdsh(uri, ["h.pwrite(b'kept' * 1024, 4096)"]);
    const isids = () => found.node.sessions.map(({ isid }) => isid.toString('hex')).sort();
    const before = isids();
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${A}/0`);
    expect((await nbdsh(uri, [READ])).trim()).toBe('kept');
    const again = await withPaths(daemon, ['ready', 'ready']);
    expect(again.UniqueSessionId).toBe(session.UniqueSessionId);
    await daemon.until(async () => isids().join() === before.join());
    await daemon.until(async () => (await sessionOf(daemon, B)).state === 'loggedIn');
    expect((await sessionOf(daemon, B)).devices).toEqual([]);
    expect((await daemon.run('logout', B)).code).toBe(0);
    expect((await sessionOf(daemon, A)).paths).toEqual([]);
    expect(found.namesOf()).toEqual([A]);
    expect((await nbdsh(uri, [READ])).trim()).toBe('kept');
    expect((await daemon.run('logout', A)).code).toBe(0);
    expect(found.namesOf()).toEqual([]);
  });

  it('no request fails if the target that was there first is away, and its path comes back', async () => {
    const disk = diskOf();
    const other = diskOf({ naa: `${NAA.slice(0, -1)}d`, serial: 'OTHER' });
    await using found = await targets({ 0: disk }, { 0: disk, 5: other });
    await using daemon = new DaemonProcess();
    await daemon.start();
    const port = await freePort();
    const first = await startTargetServer(found.node, { port });
    await daemon.json('login', `127.0.0.1:${port}`, A, ...TIMERS);
    await daemon.json('login', found.portal, B, ...TIMERS);
    const uri = uriOf(daemon, await withPaths(daemon, ['ready', 'ready']));
    await nbdsh(uri, ["h.pwrite(b'one.' * 1024, 4096)"]);
    await first.close();
    await nbdsh(uri, ["h.pwrite(b'two.' * 1024, 4096)"]);
    expect((await nbdsh(uri, [READ])).trim()).toBe('two.');
    expect(daemon.log).not.toContain('"event":"ioError"');
    const events = daemon.log.split('\n').filter((line) => line.includes('"pathState"'));
    expect(events.some((line) => line.includes(`"target":"${B}"`))).toBe(true);
    await withPaths(daemon, ['down', 'ready']);
    // LUNs of the other target are none of this one.
    await daemon.run('rescan', A);
    expect((await sessionOf(daemon, A)).devices.map(({ lun }) => lun)).toEqual([0]);
    const last = (await sessionOf(daemon, A)).paths[1]?.UniqueSessionId ?? '';
    const refused = await daemon.run('logout', last);
    expect([refused.code, refused.err]).toEqual([28, expect.stringContaining('no other path')]);
    expect((await daemon.run('logout', B)).code).toBe(28);
    const again = await startTargetServer(found.node, { port });
    await withPaths(daemon, ['ready', 'ready']);
    expect((await nbdsh(uri, [READ])).trim()).toBe('two.');
    expect((await daemon.run('logout', '--all')).code).toBe(0);
    await again.close();
  });

  it('a disk that only the second target has is a disk of its own, a new one of both is a path', async () => {
    const [disk, other] = [diskOf(), diskOf({ naa: `${NAA.slice(0, -1)}d`, serial: 'OTHER' })];
    await using found = await targets({ 0: disk }, { 0: other });
    await using daemon = new DaemonProcess();
    await daemon.start();
    for (const name of [A, B]) await daemon.json('login', found.portal, name, ...TIMERS);
    const lunsOf = async (name: string) =>
      (await sessionOf(daemon, name)).devices.map(({ lun }) => lun);
    expect([await lunsOf(A), await lunsOf(B)]).toEqual([[0], [0]]);
    found.node.targets.get(B)?.luns.set(1, disk);
    await daemon.json('rescan', B);
    const session = await withPaths(daemon, ['ready', 'ready']);
    expect(session.paths.map(({ TargetiSCSIName }) => TargetiSCSIName)).toEqual([A, B]);
    await daemon.json('rescan');
    expect([await lunsOf(A), await lunsOf(B)]).toEqual([[0], [0]]);
    expect((await daemon.run('logout', '--all')).code).toBe(0);
  });
});

describe('disks of two targets that are not proven to be one', () => {
  const NUMBER = { naa: '', serial: '00010001' };
  it.each([
    ['a T10 name that is a number', NUMBER],
    ['an NAA name of zeros', { naa: '6000000000000000', serial: '1' }],
    ['an NAA name of local administration', { naa: '3123456789abcdef', serial: '1' }],
    ['a registered name without a company', { naa: '60000000000000000e00000000010001' }],
  ])('the disks stay two, with a warning, if they have %s', async (_what, names) => {
    await using found = await targets({ 0: diskOf(names) }, { 0: diskOf(names) });
    await using daemon = new DaemonProcess();
    await daemon.start();
    for (const name of [A, B]) await daemon.json('login', found.portal, name, ...TIMERS);
    expect((await sessionOf(daemon, A)).paths).toEqual([]);
    expect((await sessionOf(daemon, B)).devices.length).toBe(1);
    await daemon.until(() => daemon.log.includes('they stay two disks. If'));
    expect((await daemon.run('logout', '--all')).code).toBe(0);
  });

  it('the disks stay two, with a warning, if only their serial numbers tell them apart', async () => {
    const disks = ['one', 'two'].map((serial) => diskOf({ serial }));
    await using found = await targets({ 0: disks[0]! }, { 0: disks[1]! });
    await using daemon = new DaemonProcess();
    await daemon.start();
    for (const name of [A, B]) await daemon.json('login', found.portal, name, ...TIMERS);
    expect((await sessionOf(daemon, A)).paths).toEqual([]);
    expect((await sessionOf(daemon, B)).devices.length).toBe(1);
    await daemon.until(() => daemon.log.includes('its serial number is different'));
    expect((await daemon.run('logout', '--all')).code).toBe(0);
  });

  it('the second login is refused (status 15) if two of its LUNs have the name', async () => {
    const disk = diskOf();
    await using found = await targets({ 0: disk }, { 0: disk, 1: diskOf() });
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.json('login', found.portal, A, ...TIMERS);
    const { code, err } = await daemon.run('login', found.portal, B, ...TIMERS);
    expect([code, err]).toEqual([15, expect.stringContaining(`is the disk naa.${NAA}`)]);
    expect(daemon.log).toContain('LUN 1 has it too, so it names no one unit');
    expect((await sessionOf(daemon, A)).paths).toEqual([]);
    expect(found.namesOf()).toEqual([A]);
  });
});

describe('a disk of two targets whose paths cannot be joined', () => {
  it.each([
    ['multipath off', ['--multipath', 'off'], 'both sessions need multipath auto'],
    ['other rights', ['--shared'], 'shared has to be the same'],
  ])('the session with %s has no path, and only --shared is let in', async (_how, flags, why) => {
    const disk = diskOf();
    await using found = await targets({ 0: disk }, { 0: disk });
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.json('login', found.portal, A, ...TIMERS);
    const { code, err } = await daemon.run('login', found.portal, B, ...TIMERS, ...flags);
    expect(code).toBe(flags.includes('--shared') ? 0 : 15);
    if (code !== 0) expect(err).toMatch(/over another way: two disks of one unit/);
    await daemon.until(() => daemon.log.includes(why));
    expect((await sessionOf(daemon, A)).paths).toEqual([]);
  });

  it('another process does not open it for writing (status 15)', async () => {
    const disk = diskOf();
    await using found = await targets({ 0: disk }, { 0: disk });
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.json('login', found.portal, A, ...TIMERS);
    const serve = ['serve', `iscsi://${found.portal}/${B}/0`, '--run', 'true'];
    const { code, err } = await daemon.run(...serve);
    expect([code, err]).toEqual([15, expect.stringContaining(`is the disk naa.${NAA}`)]);
    expect((await daemon.run(...serve, '--read-only')).code).toBe(0);
  });
});
