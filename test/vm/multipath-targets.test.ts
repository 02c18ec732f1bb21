/** One logical unit of LIO behind two targets of different names. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell } from './attached.js';
import { startLio } from './lio.js';
import { MIB } from './targets.js';

const A = 'iqn.2001-04.com.example:a';
const B = 'iqn.2001-04.com.example:b';
const FLAGS = ['--reconnect-interval', '1', '--noop-interval', '1', '--noop-timeout', '2'];

let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'targets-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

it('a disk of two targets of LIO is one device, and fio --verify has no error while each is away', {
  timeout: 600_000,
}, async () => {
  const [first, second] = ['127.0.0.1:3260', '127.0.0.1:3261'] as const;
  const luns = [{ file: join(folder, 'disk'), sizeBytes: 32 * MIB, isBuffered: true }];
  await using a = await startLio({ iqn: A, portals: [first], luns });
  await using b = await startLio({ iqn: B, portals: [second], unitsOf: a });
  await using daemon = new DaemonProcess({ devices: true });
  await daemon.start();
  await daemon.json('login', first, A, ...FLAGS);
  await daemon.json('login', second, B, ...FLAGS);
  const withPaths = async (states: string) => {
    await daemon.until(async () => {
      const { paths } = await daemon.json<SessionView>('session', A);
      return paths.map(({ state }) => state).join() === states;
    });
  };
  await withPaths('ready,ready');
  const devices = await configuredDevices();
  expect(devices.length).toBe(1);
  const enough = join(folder, 'enough');
  const load = shell(`
    until test -e ${enough}; do
      fio --name=verify --filename=/dev/nbd${devices[0]} --size=8m --rw=randwrite --bs=16k \
        --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --verify_backlog=256 \
        --verify_state_save=0
    done
  `);
  load.catch(() => undefined);
  for (const [target, states] of [
    [a, 'down,ready'],
    [b, 'ready,down'],
  ] as const) {
    await target.enable(false);
    await withPaths(states);
    await shell('sleep 4');
    await target.enable(true);
    await withPaths('ready,ready');
  }
  await shell(`touch ${enough}`);
  await load;
  expect(daemon.log).not.toMatch(/"event":"(?:ioError|deviceRemoved)"/);
  expect(await configuredDevices()).toEqual(devices);
  expect((await daemon.run('logout', '--all')).code).toBe(0);
  expect(await configuredDevices()).toEqual([]);
  expect(await daemon.stop()).toBe(0);
});
