import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { PathView } from '../../src/supervisor/path-report.js';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer } from '../../src/target/server.js';
import type { PortGroup } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';
import { checked } from '../helpers/published-schema.js';
import { DaemonProcess } from './daemon-process.js';

const NAME = 'iqn.2001-04.com.example:disk';
const exec = promisify(execFile);

describe('the paths of a disk over two target port groups', () => {
  test('paths, sessions, top and the metrics show each path with group, state and failures', {
    timeout: 120_000,
  }, async () => {
    const portGroups = new Map<number, PortGroup>([
      [1, { state: 'nonOptimized' }],
      [2, { state: 'optimized', isPreferred: true }],
    ]);
    const node = new TargetNode({
      targets: [
        { name: NAME, luns: new Map([[0, TargetDisk.ram({ sizeBytes: 8 << 20 })]]), portGroups },
      ],
      negotiation: { defaultTime2Wait: 0 },
    });
    const servers = [await startTargetServer(node), await startTargetServer(node)] as const;
    const [first, second] = servers.map(({ portal }) => portal) as [string, string];
    node.targets.get(NAME)!.portals = servers.map(({ portal }, at) => ({
      address: '127.0.0.1',
      port: Number(portal.split(':')[1]),
      portalGroupTag: at + 1,
    }));
    await using daemon = new DaemonProcess();
    const socket = join(daemon.folder, 'metrics.sock');
    await daemon.start('--metrics-listen', socket);
    const metrics = async () =>
      (await exec('curl', ['-s', '--unix-socket', socket, 'http://x/metrics'])).stdout;
    const paths = async () =>
      (await daemon.json<{ paths: readonly PathView[] }>('paths', NAME)).paths;
    expect((await daemon.run('paths')).code).toBe(21);
    const multipath = ['--multipath', 'auto', '--portals', second, '--path-check', '0.2'];
    await daemon.json('login', first, NAME, ...multipath);
    await daemon.until(async () => (await paths()).every(({ state }) => state === 'ready'));

    const common = { lun: 0, TargetiSCSIName: NAME, suspect: false, failures: 0 };
    const { out: json } = await daemon.run('paths', '--json');
    expect(checked('paths', json)).toMatchObject({
      paths: [
        { ...common, portal: first, pathState: 'nonOptimized', group: 1, preferred: false },
        { ...common, portal: second, pathState: 'optimized', group: 2, preferred: true },
      ],
    });
    const { out: table } = await daemon.run('paths');
    expect(table).toMatch(/^DISK +LUN +PORTAL +STATE +GROUP +QD +FAILURES +SESSION +TARGET\n/);
    expect(table).toMatch(
      new RegExp(`${second} +optimized +group 2, preferred +\\d+ +0 +[0-9a-f]`),
    );
    expect((await daemon.run('sessions')).out).toMatch(/ PATHS +TARGET\n.* 2\/2 +iqn/);

    portGroups.set(2, { state: 'standby' });
    await daemon.until(async () => (await paths())[1]?.pathState === 'standby');
    const trouble = `LUN 0: the path over ${second} is standby: `;
    expect((await daemon.run('paths')).out).toContain(trouble);
    const { out: sessions } = await daemon.run('sessions');
    expect(sessions).toMatch(/ 1\/2 +iqn/);
    expect(sessions).toContain(trouble);
    const { out: top } = await daemon.run('top', '--count', '1');
    expect(top).toMatch(/\nPATH +LUN +STATE +IN\/s +OUT\/s +QD +FAILURES +GROUP +PORTAL\n/);
    expect(top).toMatch(
      new RegExp(`[0-9a-f]{8} +0 +standby .* group 2(?:, preferred)? +${second}\n`),
    );
    checked('statistics', (await daemon.run('top', '--count', '1', '--json')).out);

    // A path whose session is lost while it serves has failed once.
    const losses = async () => (await paths())[0]?.failures ?? 0;
    portGroups.set(2, { state: 'optimized' });
    await daemon.until(async () => (await paths())[1]?.pathState === 'optimized');
    for (const connection of [...node.connections]) {
      if (connection.session?.portalGroupTag === 1) connection.drop();
    }
    await daemon.until(async () => (await losses()) === 1);
    const text = await metrics();
    const labels = `target="${NAME}",lun="0",portal="${first}"`;
    const line = (name: string, value: string, more = '') =>
      new RegExp(`^iscsi_nbd_path_${name}{[^}]*${labels}[^}]*${more}} ${value}$`, 'm');
    expect(text).toMatch(line('failures_total', '1'));
    expect(text).toMatch(line('up', '[01]'));
    expect(text).toMatch(line('sent_bytes_total', '\\d+'));
    expect(text).toMatch(line('state', '0', 'state="offline"'));

    // The first path is away for good: the disk is served over the other, and nothing is removed.
    await servers[0].close();
    for (const connection of [...node.connections]) {
      if (connection.session?.portalGroupTag === 1) connection.drop();
    }
    const view = async () =>
      (await daemon.json<{ sessions: SessionView[] }>('sessions')).sessions[0];
    await daemon.until(async () => {
      const { state, removalInSeconds } = (await view()) ?? {};
      return state === 'reconnecting' && removalInSeconds === null;
    });
    expect((await daemon.run('sessions')).out).not.toContain('devices are removed');
    expect((await daemon.run('logout', NAME)).code).toBe(0);
    expect(node.sessions).toHaveLength(0);
    expect(await metrics()).not.toMatch(/^iscsi_nbd_path_up{/m);
    expect(await daemon.stop()).toBe(0);
    await servers[1].close();
  });
});
