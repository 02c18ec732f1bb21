/**
 * What a target with a volatile write cache has acknowledged and not flushed is written again: tgt as
 * it is by default (WCE=1, and 29h at each login) and LIO on a buffered file, under `attach` and a
 * daemon, with the target and our process killed.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { type Attached, attach, cleanUp } from './attached.js';
import { ext4Pauses, type Server, type Target } from './ext4-pauses.js';
import { startLio } from './lio.js';
import { MIB } from './targets.js';

const RETAINED = '/run/iscsi-nbd/retained';
const SIZE = 48 * MIB;
let folder = '';
let file = '';
let filesBefore: string[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'retained-'));
  file = join(folder, 'disk');
  filesBefore = await retainedFiles();
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

/** Journals and slabs; what an earlier test has left may be set aside as stale meanwhile. */
async function retainedFiles(): Promise<string[]> {
  const files = await readdir(RETAINED).catch(() => []);
  return files.map((name) => name.replace(/\.stale$/, ''));
}

async function expectNoNewFiles(): Promise<void> {
  const files = await retainedFiles();
  expect(files.filter((name) => !filesBefore.includes(name))).toEqual([]);
}

function tgtTarget(tgt: Tgt): Target {
  return { file, leave: () => tgt.kill(), comeBack: () => tgt.restart() };
}

function attachServer(url: string): Server {
  const all: Attached[] = [];
  const last = () => all.at(-1) as Attached;
  let seen = 0;
  const count = (name: string) =>
    all.flatMap(({ events }) => events).filter(({ event }) => event === name).length;
  return {
    start: async () => {
      all.push(await attach(url, ['--reconnect-interval', '1']));
      seen = 0;
      return last().device;
    },
    kill: async () => {
      await last().end('SIGKILL');
    },
    untilBack: async () => {
      const change = { from: 'reconnecting', to: 'loggedIn' };
      seen = last().events.indexOf(await last().waitFor('sessionState', change, seen)) + 1;
    },
    end: async () => {
      expect(await last().end('SIGTERM')).toBe(0);
    },
    said: () => ({ errors: count('ioError'), replays: count('writesReplayed') }),
  };
}

function daemonServer(daemon: DaemonProcess, tgt: Tgt): Server {
  const session = async () => {
    const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
    return sessions[0];
  };
  const count = (name: string) => daemon.log.match(new RegExp(`\\b${name}\\b`, 'g'))?.length ?? 0;
  const untilBack = () => daemon.until(async () => (await session())?.state === 'loggedIn');
  return {
    start: async () => {
      const isFirst = daemon.pid === 0;
      await daemon.start(...(isFirst ? [] : ['--wait-for', `${tgt.iqn}/1`]));
      if (isFirst) {
        const login = ['login', `127.0.0.1:${tgt.port}`, tgt.iqn, '--reconnect-interval', '1'];
        expect(await daemon.run(...login)).toMatchObject({ code: 0, err: '' });
      }
      await untilBack();
      return (await session())?.devices[0]?.device ?? '';
    },
    kill: async () => {
      await daemon.stop('SIGKILL');
    },
    untilBack,
    end: async () => {
      expect(await daemon.run('logout', tgt.iqn)).toMatchObject({ code: 0, err: '' });
      expect(await daemon.stop()).toBe(0);
    },
    said: () => ({ errors: count('ioError'), replays: count('writesReplayed') }),
  };
}

it('three outages, three kill -9, and both at once are a pause for ext4 on a tgt with its write cache', async () => {
  await using tgt = await startTgt({ luns: [{ file, sizeBytes: SIZE }] });
  await ext4Pauses(folder, { target: tgtTarget(tgt), server: attachServer(tgt.url()) });
  await expectNoNewFiles();
});

it('three outages, three kill -9, and both at once are a pause for ext4 on a LIO with a buffered file', async () => {
  const iqn = 'iqn.2003-01.org.linux-iscsi:retained';
  const portals = ['127.0.0.1:3270'];
  await using lio = await startLio({
    luns: [{ file, sizeBytes: SIZE, isBuffered: true }],
    iqn,
    portals,
  });
  const target = { file, leave: () => lio.enable(false), comeBack: () => lio.enable(true) };
  const server = attachServer(`iscsi://${portals[0]}/${iqn}/0`);
  await ext4Pauses(folder, { target, server });
  await expectNoNewFiles();
});

it('three outages, three kill -9 of the daemon, and both at once are a pause for ext4 on a tgt', async () => {
  await using tgt = await startTgt({ luns: [{ file, sizeBytes: SIZE }] });
  await using daemon = new DaemonProcess({ devices: true, retained: RETAINED });
  await ext4Pauses(folder, { target: tgtTarget(tgt), server: daemonServer(daemon, tgt) });
  await expectNoNewFiles();
});
