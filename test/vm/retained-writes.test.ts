/**
 * What a target with a volatile write cache has acknowledged and not flushed is written again: tgt as
 * it is by default (WCE=1, and 29h at each login), under ext4, with the target and our process killed.
 */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import {
  type Attached,
  attach,
  cleanUp,
  configuredDevices,
  shell,
  stuckTasks,
} from './attached.js';
import { MIB, sha256 } from './targets.js';

const RETAINED = '/run/iscsi-nbd/retained';
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'retained-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

function retainedFiles(): Promise<string[]> {
  return readdir(RETAINED).catch(() => []);
}

it('three outages, three kill -9, and both at once are a pause for ext4 on a tgt with its write cache', {
  timeout: 600_000,
}, async () => {
  const file = join(folder, 'disk');
  await using tgt = await startTgt({ luns: [{ file, sizeBytes: 96 * MIB }] });
  const url = tgt.url();
  const filesBefore = await retainedFiles();
  const flags = ['--reconnect-interval', '1'];
  const all: Attached[] = [];
  const start = async (): Promise<Attached> => {
    const attached = await attach(url, flags);
    all.push(attached);
    return attached;
  };
  let attached = await start();
  const { device } = attached;
  const mount = join(folder, 'mnt');
  await mkdir(mount);
  await shell(`mkfs.ext4 -q ${device}; mount ${device} ${mount}`);
  const fio = shell(`
    fio --name=syncs --directory=${mount} --ioengine=psync --rw=randwrite --bs=4k --size=8m \
      --fsync=4 --rate_iops=,60 --verify=crc32c --verify_state_save=0 --do_verify=1 \
      --loops=4 --output=${folder}/fio`);
  const copies = shell(`
    cd ${mount}; n=0; while ! test -e ${folder}/enough; do n=$((n+1))
      dd if=/dev/urandom of=c$((n % 40)) bs=32k count=$((n % 8 + 1)) status=none
      test $((n % 5)) = 0 && sync -f . ; sleep 0.1; done
    sha256sum c* >${folder}/sums`);
  for (const running of [fio, copies]) running.catch(() => undefined);
  for (let outages = 0; outages < 3; outages += 1) {
    await sleep(2000);
    await tgt.kill();
    await sleep(2000 + 1000 * outages);
    await tgt.restart();
    await attached.waitFor('sessionState', { from: 'reconnecting', to: 'loggedIn' });
  }
  for (let kills = 0; kills < 3; kills += 1) {
    await sleep(2000);
    await attached.end('SIGKILL');
    await sleep(1000);
    attached = await start();
  }
  await sleep(2000);
  await tgt.kill();
  await sleep(1000);
  await attached.end('SIGKILL');
  await sleep(500);
  await tgt.restart();
  attached = await start();
  await sleep(2000);
  await shell(`touch ${folder}/enough`);
  await copies;
  await fio;
  await shell(`cd ${mount}; touch writable; sync -f .; sha256sum -c --quiet ${folder}/sums`);
  await shell(`umount ${mount}; e2fsck -fn ${device}`);
  for (const { events } of all)
    expect(events.filter(({ event }) => event === 'ioError')).toEqual([]);
  const replays = all.flatMap(({ events }) =>
    events.filter((each) => each.event === 'writesReplayed'),
  );
  expect(replays.length).toBeGreaterThan(0);
  const onDevice = await sha256(device);
  expect(await attached.end('SIGTERM')).toBe(0);
  expect(await sha256(file)).toBe(onDevice);
  expect(await retainedFiles()).toEqual(filesBefore);
  expect(await configuredDevices()).toEqual([]);
  expect(await stuckTasks()).toEqual([]);
});
