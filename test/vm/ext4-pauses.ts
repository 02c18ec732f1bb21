/**
 * ext4 under load on a device while its target, the process that serves it, and both at once go away
 * and come back: for the file system all of it is a pause. The target has a volatile write cache.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { configuredDevices, shell, stuckTasks, until } from './attached.js';
import { MIB, sha256 } from './targets.js';

/** A target whose LUN is a file of this machine. */
export type Target = {
  readonly file: string;
  /** Ends the sessions of the target and refuses logins. */
  leave(): Promise<void>;
  comeBack(): Promise<void>;
};

/** The process that serves the device: `attach` or a daemon. */
export type Server = {
  /** Starts one, which takes over what the one before has left; resolves with the device. */
  start(): Promise<string>;
  kill(): Promise<void>;
  /** Resolves when the session is back after the target was away. */
  untilBack(): Promise<void>;
  /** Ends it in order: without session, device, and anything that is retained. */
  end(): Promise<void>;
  /** What all processes have said so far: failed requests, and how often writes were replayed. */
  said(): { readonly errors: number; readonly replays: number };
};

const OUTAGES = 3;
const KILLS = 3;
/** Written between two events, so that each finds writes under way. */
const LOAD_BYTES = MIB / 8;

/** Sectors of 512 bytes written (Documentation/block/stat.rst, field 7). */
async function writtenTo(device: string): Promise<number> {
  const stat = await readFile(`/sys/block/${basename(device)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[6]) * 512;
}

export async function ext4Pauses(
  folder: string,
  { target, server }: { readonly target: Target; readonly server: Server },
): Promise<void> {
  await shell('dmesg --clear');
  const device = await server.start();
  const mount = join(folder, 'mnt');
  await mkdir(mount);
  await shell(`mkfs.ext4 -q ${device}; mount ${device} ${mount}`);
  const load = startLoad(folder, mount);
  const someWrites = async () => {
    const before = await writtenTo(device);
    const isEnough = async () => (await writtenTo(device)) > before + LOAD_BYTES;
    await Promise.race([load.failed, until(isEnough, 120_000, () => `writes to ${device}`)]);
  };
  for (let outages = 0; outages < OUTAGES; outages += 1) {
    await someWrites();
    await target.leave();
    await sleep(2000 + 1000 * outages);
    await target.comeBack();
    await server.untilBack();
  }
  for (let kills = 0; kills < KILLS; kills += 1) {
    await someWrites();
    await server.kill();
    expect(await server.start()).toBe(device);
  }
  await someWrites();
  await target.leave();
  await sleep(1000);
  await server.kill();
  await target.comeBack();
  expect(await server.start()).toBe(device);
  await someWrites();
  await load.end();
  await shell(`cd ${mount}; touch writable; sync -f .; cd /; umount ${mount}
    mount ${device} ${mount}; ${load.verify}; umount ${mount}; e2fsck -fn ${device}`);
  expect(server.said().errors).toBe(0);
  expect(server.said().replays).toBeGreaterThan(0);
  expect(await shell('dmesg | grep -E "I/O error|EXT4-fs (error|warning)|Abort" || true')).toBe('');
  const onDevice = await sha256(device);
  await server.end();
  expect(await sha256(target.file)).toBe(onDevice);
  expect(await configuredDevices()).toEqual([]);
  expect(await stuckTasks()).toEqual([]);
}

/**
 * fio that fsyncs, copies that are synced at times, and direct writes, over and over until `end`. The
 * direct ones see to it that some acknowledged write is not flushed at nearly any instant.
 */
function startLoad(folder: string, mount: string) {
  const job = `fio --name=syncs --directory=${mount} --ioengine=psync --rw=randwrite --bs=4k \
    --size=1m --randseed=7 --fsync=4 --verify=crc32c --verify_state_save=0 --output=${folder}/fio`;
  const fio = shell(`
    until test -e ${folder}/enough; do ${job} --rate_iops=,60 --do_verify=1; done`);
  const copies = shell(`
    cd ${mount}; n=0; until test -e ${folder}/enough; do n=$((n+1))
      dd if=/dev/urandom of=c$((n % 40)) bs=32k count=$((n % 8 + 1)) status=none
      test $((n % 5)) != 0 || sync -f .; sleep 0.3; done
    sha256sum c* >${folder}/sums`);
  // A failed write ends it, and then no process is left to interrupt.
  const direct = shell(`
    fio --name=direct --directory=${mount} --ioengine=psync --direct=1 --rw=randwrite --bs=4k \
      --size=64k --rate_iops=,100 --time_based --runtime=3600 --output=${folder}/direct & writer=$!
    until test -e ${folder}/enough; do sleep 0.5; done
    kill -INT $writer; wait $writer || true`);
  const ended = Promise.all([fio, copies, direct]);
  // An end of the load before the test ends it is always a failure.
  const failed = ended.then(() => undefined);
  failed.catch(() => undefined);
  return {
    failed,
    end: async () => {
      await shell(`touch ${folder}/enough`);
      await ended;
    },
    verify: `(cd ${mount}; sha256sum -c --quiet ${folder}/sums); ${job} --verify_only`,
  };
}
