/** A LUN that its target (tgt, as it is by default) unmaps and maps again while the session lives. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import type { DeviceView, SessionView } from '../../src/supervisor/session-report.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from './daemon-process.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });
const exec = promisify(execFile);
const ON_LUN = ['--lld', 'iscsi', '--mode', 'logicalunit', '--tid', '1', '--lun', '2'];

let folder: string;
let file: string;
let tgt: Tgt;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-away-'));
  file = join(folder, 'lun2.img');
  await writeFile(file, '');
  await truncate(file, 1 << 20);
  tgt = await startTgt({ luns: [{ sizeBytes: 1 << 20 }, { file }] });
});
afterAll(async () => {
  await tgt.stop();
  await rm(folder, { recursive: true });
});

it('every view shows an unmapped LUN as away with its countdown, removed with the reason, and serving again', async () => {
  await using daemon = new DaemonProcess();
  const metrics = join(daemon.folder, 'metrics.sock');
  await daemon.start('--metrics-listen', metrics);
  await daemon.run('login', `127.0.0.1:${tgt.port}`, tgt.iqn, '--removal-latency', '6');
  const devices = async () => (await daemon.json<{ devices: DeviceView[] }>('devices')).devices;
  const second = async () => (await devices()).find(({ lun }) => lun === 2);
  const metricsText = async () =>
    (await exec('curl', ['-s', '--unix-socket', metrics, 'http://x/metrics'])).stdout;
  const textOf = async (...args: string[]) => (await daemon.run(...args)).out;
  const before = await second();
  expect(before).toMatchObject({ lunState: 'serving', removalInSeconds: null, lastError: null });

  await tgt.adm(...ON_LUN, '--op', 'delete');
  await daemon.run('rescan', tgt.iqn);
  await daemon.until(async () => (await second())?.lunState === 'away');
  const away = await second();
  expect(away).toMatchObject({ uri: before?.uri, state: 'loggedIn' });
  expect(away?.removalInSeconds).toBeGreaterThan(0);
  expect(away?.removalInSeconds).toBeLessThanOrEqual(6);
  expect(away?.lastError).toMatch(/no such logical unit/);
  const session = await daemon.json<SessionView>('session', tgt.iqn);
  expect(session).toMatchObject({ state: 'loggedIn', lastError: null });
  expect(session.removalInSeconds).toBeGreaterThan(0);
  const trouble = /LUN 2 is away, removed in \d s: .*no such logical unit/;
  expect(await textOf('devices')).toMatch(trouble);
  expect(await textOf('sessions')).toMatch(trouble);
  expect(await textOf('session', tgt.iqn)).toMatch(/LUN 2 .* away, removed in \d s/);
  expect(await textOf('top', '--count', '1')).toMatch(trouble);
  expect(await metricsText()).toMatch(/iscsi_nbd_lun_state\{[^}]*lun="2",state="away"\} 1/);
  expect(await metricsText()).toMatch(/iscsi_nbd_lun_removal_seconds\{[^}]*lun="2"\} [1-6]/);

  await daemon.until(async () => (await second())?.lunState === 'removed');
  const reason = /away for the removal latency of 6 s: .*no such logical unit/;
  expect(await second()).toMatchObject({ uri: null, removalInSeconds: null, state: 'loggedIn' });
  expect((await second())?.lastError).toMatch(reason);
  for (const command of ['devices', 'sessions', 'top --count 1']) {
    expect(await textOf(...command.split(' '))).toMatch(/LUN 2 is removed: away for the removal/);
  }
  expect(await metricsText()).toMatch(/iscsi_nbd_lun_state\{[^}]*lun="2",state="removed"\} 1/);
  expect(await metricsText()).not.toMatch(/iscsi_nbd_lun_removal_seconds\{/);
  expect(await devices()).toContainEqual(expect.objectContaining({ lun: 1, lunState: 'serving' }));

  await tgt.adm(...ON_LUN, '--op', 'new', '--backing-store', file);
  await daemon.until(async () => (await second())?.lunState === 'serving');
  expect(await second()).toMatchObject({ uri: before?.uri, lastError: null });
});
