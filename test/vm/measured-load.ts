/**
 * Load on a block device that measures: each read and write of fio with the time that it took, so
 * that what happens to the paths of a disk meanwhile has its longest request.
 */
import { readdir, readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { shell, until } from './attached.js';

export type DoneRequest = {
  /** Of the system's clock. */
  readonly doneAtMs: number;
  readonly ms: number;
  readonly isRead: boolean;
};

export type MeasuredLoad = {
  /** Rejects if the load ends before its stop is requested. */
  readonly failed: Promise<unknown>;
  /** Resolves when requests of both kinds have been done. */
  untilBusy(): Promise<void>;
  /** Resolves with all requests. */
  end(): Promise<DoneRequest[]>;
};

/** Writes to files, some of them synced, until `end`, which verifies all of them. */
export function startFileLoad(folder: string, mount: string) {
  const job = `fio --name=files --directory=${mount} --nrfiles=4 --ioengine=psync --rw=randwrite \
    --bs=4k --size=2m --randseed=7 --fsync=8 --verify=crc32c --verify_fatal=1 \
    --verify_state_save=0 --output=${folder}/files`;
  const ended = shell(`until test -e ${folder}/enough; do ${job} --rate_iops=,60; done`);
  ended.catch(() => undefined);
  return {
    failed: ended,
    end: async () => {
      await shell(`touch ${folder}/enough`);
      await ended;
    },
    verify: `${job} --verify_only`,
  };
}

/** Of the device: one half is written and verified over and over, the other is measured. */
const HALF_MIB = 16;
const BUSY_REQUESTS = 50;

/**
 * Each request is one of a thread that does one after the other, as an application's: 2 that read
 * and 2 that write. Beside them runs a queue of 16 writes that are verified.
 */
export function startMeasuredLoad(folder: string, device: string): MeasuredLoad {
  const common = `--filename=${device} --direct=1 --bs=4k --thread \
    --clocksource=clock_gettime`;
  const rw = (name: string) => `--name=${name} --rw=rand${name} --numjobs=2 --log_unix_epoch=1 \
    --write_lat_log=${folder}/${name}`;
  const measured = shell(`
    fio --name=global ${common} --ioengine=psync --offset=${HALF_MIB}m --size=${HALF_MIB}m \
      --time_based --runtime=3600 --rate_iops=20,20 ${rw('read')} ${rw('write')} \
      --output=${folder}/measured & fio=$!
    until test -e ${folder}/enough; do kill -0 $fio; sleep 1; done
    kill -INT $fio; wait $fio || true`);
  const verified = shell(`
    until test -e ${folder}/enough; do
      fio ${common} --name=verified --ioengine=libaio --iodepth=16 --rw=randwrite --size=3m \
        --rate_iops=,120 --verify=crc32c --verify_fatal=1 --verify_backlog=64 \
        --verify_state_save=0 --output=${folder}/verified
    done`);
  const ended = Promise.all([measured, verified]);
  const failed = ended.then(() => undefined);
  failed.catch(() => undefined);
  return {
    failed,
    untilBusy: async () => {
      const before = await doneBy(device);
      const isBusy = async () => {
        const [reads, writes] = await doneBy(device);
        return reads > before[0] + BUSY_REQUESTS && writes > before[1] + BUSY_REQUESTS;
      };
      await until(isBusy, 120_000, () => `requests to ${device}`);
    },
    end: async () => {
      await shell(`touch ${folder}/enough`);
      await ended;
      await shell(`! grep -h 'err=' ${folder}/measured ${folder}/verified | grep -v 'err= 0'`);
      return requestsIn(folder);
    },
  };
}

/** Reads and writes that are done (Documentation/block/stat.rst, fields 1 and 5). */
async function doneBy(device: string): Promise<readonly [reads: number, writes: number]> {
  const name = basename(await realpath(device));
  const fields = (await readFile(`/sys/block/${name}/stat`, 'utf8')).trim().split(/\s+/);
  return [Number(fields[0]), Number(fields[4])];
}

async function requestsIn(folder: string): Promise<DoneRequest[]> {
  const logs = (await readdir(folder)).filter((name) => /^(read|write)_lat\.\d+\.log$/.test(name));
  const requests: DoneRequest[] = [];
  for (const name of logs) {
    const text = await readFile(join(folder, name), 'utf8');
    for (const line of text.trim().split('\n')) {
      const [doneAtMs = Number.NaN, nanoseconds = Number.NaN] = line.split(',').map(Number);
      requests.push({ doneAtMs, ms: nanoseconds / 1e6, isRead: name.startsWith('read') });
    }
  }
  return requests;
}

/** The longest read and the longest write that ended from one time until another. */
export function longestIn(
  requests: readonly DoneRequest[],
  fromMs: number,
  toMs: number,
): { readonly readMs: number; readonly writeMs: number } {
  let readMs = Number.NaN;
  let writeMs = Number.NaN;
  for (const { doneAtMs, ms, isRead } of requests) {
    if (doneAtMs < fromMs || doneAtMs > toMs) continue;
    if (isRead) readMs = Number.isNaN(readMs) ? ms : Math.max(readMs, ms);
    else writeMs = Number.isNaN(writeMs) ? ms : Math.max(writeMs, ms);
  }
  return { readMs, writeMs };
}
