import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { errorsIn, fioVerify } from '../helpers/fio.js';
import { ServedDisk } from '../helpers/served-disk.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';

const MIB = 1 << 20;

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
