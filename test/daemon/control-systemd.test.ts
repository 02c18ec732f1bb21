import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../src/daemon/log.js';
import { SystemdNotify } from '../../src/daemon/systemd-notify.js';

let directory: string;
const log = createLog({ level: 'silent', pretty: false, stream: new PassThrough() });
const told = () => {
  const path = join(directory, 'told');
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
};

/** Stands where systemd-notify does and writes down what it is told, and over which socket. */
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'notify-'));
  const stub = join(directory, 'systemd-notify');
  writeFileSync(stub, `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> ${directory}/told\n`);
  chmodSync(stub, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function notify(environment: Record<string, string>): SystemdNotify {
  const path = `${directory}:${process.env['PATH']}`;
  return new SystemdNotify({ PATH: path, ...environment }, log);
}

describe('systemd (sd_notify(3))', () => {
  it('is told of readiness and of the end', async () => {
    const systemd = notify({ NOTIFY_SOCKET: '/run/x' });
    await systemd.status('waiting');
    await systemd.ready('serving');
    await systemd.stopping();
    expect(told()).toEqual([
      '/run/x STATUS=waiting',
      '/run/x READY=1 STATUS=serving',
      '/run/x STOPPING=1',
    ]);
  });

  it('is fed by half the watchdog time, until the end', async () => {
    const systemd = notify({ NOTIFY_SOCKET: '/run/x', WATCHDOG_USEC: '100000' });
    await systemd.ready('serving');
    while (told().filter((line) => line.endsWith('WATCHDOG=1')).length < 3) await sleep(10);
    await systemd.stopping();
  });

  it('is not fed for another process (WATCHDOG_PID)', async () => {
    const other = { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' };
    const systemd = notify({ NOTIFY_SOCKET: '/run/x', ...other });
    await systemd.ready('serving');
    await sleep(100);
    await systemd.stopping();
    expect(told().join()).not.toContain('WATCHDOG=1');
  });

  it('is left alone where it did not start us, or is not there', async () => {
    await notify({}).ready('serving');
    expect(told()).toEqual([]);
    await new SystemdNotify({ PATH: '/nowhere', NOTIFY_SOCKET: '/run/x' }, log).ready('serving');
  });
});
