import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { DaemonProcess } from './daemon-process.js';

const ROOT = 'iqn.2001-04.com.example:root';
const DATA = 'iqn.2001-04.com.example:data';
const INITIATOR = ['--initiator-name', 'iqn.2001-04.com.example:boot-host'];
type Sessions = { readonly sessions: SessionView[] };

let server: TargetServer;

beforeAll(async () => {
  const targets = [ROOT, DATA].map((name) => ({
    name,
    luns: { 0: TargetDisk.ram({ sizeBytes: 8 << 20 }) },
  }));
  server = await startTargetServer(
    new TargetNode({ targets, negotiation: { defaultTime2Wait: 0 } }),
  );
});
afterAll(() => server.close());

function login(daemon: DaemonProcess, target: string, ...flags: readonly string[]) {
  return daemon.run('login', `127.0.0.1:${server.port}`, target, ...INITIATOR, ...flags);
}

async function sessions(daemon: DaemonProcess): Promise<SessionView[]> {
  return (await daemon.json<Sessions>('sessions')).sessions;
}

describe('a Boot session (MSiSCSI type 3)', { timeout: 120_000 }, () => {
  it('a Boot session is logged out only with --force; --all skips it with a message', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    expect(await login(daemon, ROOT, '--type', 'boot')).toMatchObject({ code: 0 });
    expect(await login(daemon, DATA)).toMatchObject({ code: 0 });
    expect((await sessions(daemon)).map((session) => session.Type).sort()).toEqual([2, 3]);
    const refused = await daemon.run('logout', ROOT);
    expect(refused.code).toBe(28);
    expect(refused.err).toContain('started from');
    expect(refused.err).toContain('--force');
    const all = await daemon.run('logout', '--all');
    expect(all.code).toBe(0);
    expect(all.err).toContain(`${ROOT}: the system was started from it`);
    expect((await sessions(daemon)).map((session) => session.TargetiSCSIName)).toEqual([ROOT]);
    expect(await daemon.run('logout', '--all', '--force')).toMatchObject({ code: 0, err: '' });
    expect(await sessions(daemon)).toEqual([]);
  });

  it('a Boot session has the same identity at every start, and another one than data sessions', async () => {
    const identities = [];
    for (let start = 0; start < 2; start += 1) {
      // A state directory of its own each time, as /run is after a reboot.
      await using daemon = new DaemonProcess();
      await daemon.start();
      await login(daemon, ROOT, '--type', 'boot');
      const [session] = await sessions(daemon);
      identities.push([session?.UniqueSessionId, session?.ISID]);
    }
    expect(identities[1]).toEqual(identities[0]);
    await using daemon = new DaemonProcess();
    await daemon.start();
    await login(daemon, ROOT);
    expect((await sessions(daemon))[0]?.ISID).not.toEqual(identities[0]?.[1]);
  });

  it('a Boot session moves to a daemon that is started with --take-over, while the first one lives', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await login(daemon, ROOT, '--type', 'boot', '--persistent');
    const [before] = await sessions(daemon);
    const first = daemon.ended;
    const { pid } = daemon;
    await daemon.start('--take-over', '--wait-for', `${ROOT}/0`);
    expect(await first).toBe(0);
    expect(daemon.pid).not.toBe(pid);
    const [after] = await sessions(daemon);
    expect([after?.UniqueSessionId, after?.ISID, after?.state]).toEqual([
      before?.UniqueSessionId,
      before?.ISID,
      'loggedIn',
    ]);
  });

  it('a Boot session survives SIGTERM, with the cache of its disk written', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await login(daemon, ROOT, '--type', 'boot', '--persistent');
    await login(daemon, DATA, '--persistent');
    expect(await daemon.stop('SIGTERM')).toBe(0);
    const folder = join(daemon.folder, 'state', 'logins');
    const records = readdirSync(folder).map((name) =>
      JSON.parse(readFileSync(join(folder, name), 'utf8')),
    );
    const ended = records.map(({ sessionType, active, handedOver }) => ({
      sessionType,
      active,
      handedOver,
    }));
    expect(ended).toContainEqual({ sessionType: 'boot', active: true, handedOver: true });
    expect(ended).toContainEqual({ sessionType: 'data', active: false, handedOver: undefined });
  });

  it('a second daemon without --take-over is rejected (status 28)', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const { ended, pid } = daemon;
    daemon.launch();
    expect(await daemon.ended).toBe(28);
    process.kill(pid, 'SIGTERM');
    expect(await ended).toBe(0);
  });
});
