import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { errorsIn, fioVerify, fioVerifyPaced } from '../helpers/fio.js';
import { published } from '../helpers/published-schema.js';
import { ServedDisk, type ServedEvent } from '../helpers/served-disk.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from './daemon-process.js';

const MIB = 1 << 20;
const NAME = 'iqn.2001-04.com.example:disk';

describe.concurrent('a disk of tgt with two portals', () => {
  test('no request fails while one portal after the other is closed and comes back', {
    timeout: 90_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    const other = await freePort();
    await portal(tgt, 'new', other);
    await using served = await ServedDisk.start(
      tgt.url(),
      '--multipath',
      'auto',
      '--portals',
      `127.0.0.1:${other}`,
    );
    await served.heard((event) => event.event === 'pathState' && event['to'] !== 'down', 0);
    const fio = fioVerify(served.uri, 20);
    for (const port of [tgt.port, other]) {
      await sleep(2000);
      await portal(tgt, 'delete', port);
      await endConnections(tgt);
      await sleep(3000);
      await portal(tgt, 'new', port);
      await sleep(3000);
    }
    expect(errorsIn(await fio)).toEqual(['0']);
    const names = served.events.map(({ event }) => event);
    expect(names).not.toContain('ioError');
    expect(names).not.toContain('deviceRemoved');
    expect(names).toContain('pathSwitched');
  });
});

describe('a disk with two sessions to one portal', () => {
  test('no request fails while one connection after the other is reset, and both come back', {
    timeout: 90_000,
  }, async () => {
    const disk = TargetDisk.ram({ sizeBytes: 64 * MIB });
    await using target = await embeddedTarget({ name: NAME, luns: { 0: disk } });
    await using served = await ServedDisk.start(
      `${target.url}/0`,
      ...['--sessions-per-portal', '2', '--reconnect-interval', '0.5'],
    );
    const isUsed = (event: ServedEvent) => event.event === 'pathState' && event.to === 'ready';
    const first = await served.heard(isUsed, 0);
    await served.heard(isUsed, served.events.indexOf(first) + 1);
    // The discovery that looks for portals has no target, and may still be there.
    const paths = () => target.node.sessions.filter((session) => session.target !== null);
    expect(new Set(paths().map(({ isid }) => isid.toString('hex'))).size).toBe(2);
    const fio = fioVerifyPaced(served.uri);
    for (let round = 0; round < 4; round += 1) {
      await sleep(300);
      const after = served.events.length;
      target.node.connections.find(({ session }) => session === paths()[0])?.drop();
      const isDown = (event: ServedEvent) => event.event === 'pathState' && event.to === 'down';
      const down = await served.heard(isDown, after);
      await served.heard(isUsed, served.events.indexOf(down));
    }
    expect(errorsIn(await fio)).toEqual(['0']);
    const names = served.events.map(({ event }) => event);
    for (const name of ['ioError', 'deviceRemoved', 'deviceHeld'])
      expect(names).not.toContain(name);
    expect(paths().length).toBe(2);
  });
});

describe('the views of a disk with two paths', () => {
  test('the command session shows each path, and a logout ends both sessions', {
    timeout: 120_000,
  }, async () => {
    const name = NAME;
    const node = new TargetNode({
      targets: [{ name, luns: new Map([[0, TargetDisk.ram({ sizeBytes: 8 * MIB })]]) }],
      negotiation: { defaultTime2Wait: 0 },
    });
    const [first, second] = [await startTargetServer(node), await startTargetServer(node)];
    await using daemon = new DaemonProcess();
    await daemon.start();
    const multipath = ['--multipath', 'auto', '--portals', second.portal];
    await daemon.json('login', first.portal, name, ...multipath);
    let session = await daemon.json<SessionView>('session', name);
    while (session.paths.some(({ state }) => state !== 'ready')) {
      session = await daemon.json<SessionView>('session', name);
    }
    published('session').parse(session);
    expect(session.paths).toMatchObject([
      { lun: 0, portal: first.portal, state: 'ready', group: null, suspect: false },
      { lun: 0, portal: second.portal, state: 'ready', group: null, suspect: false },
    ]);
    const { out } = await daemon.runProcess('session', name);
    expect(out).toMatch(new RegExp(`LUN 0  ${second.portal}  ready  \\d+ commands`));
    expect((await daemon.runProcess('logout', name)).code).toBe(0);
    expect(node.sessions).toHaveLength(0);
    expect(await daemon.stop()).toBe(0);
    await first.close();
    await second.close();
  });
});

function portal(tgt: Tgt, op: 'new' | 'delete', port: number): Promise<string> {
  const param = `portal=127.0.0.1:${port}`;
  return tgt.adm('--lld', 'iscsi', '--op', op, '--mode', 'portal', '--param', param);
}

/** Ends the connections of all sessions: those whose portal is there come back. */
async function endConnections(tgt: Tgt): Promise<void> {
  const shown = await tgt.adm('--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1');
  for (const [, sid] of shown.matchAll(/^Session: (\d+)/gm)) {
    const which = ['--tid', '1', '--sid', sid ?? '', '--cid', '0'];
    await tgt.adm('--lld', 'iscsi', '--op', 'delete', '--mode', 'conn', ...which);
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      if (address === null || typeof address === 'string') reject(new Error('no port'));
      else server.close(() => resolve(address.port));
    });
  });
}
