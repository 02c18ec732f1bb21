/** fio with its engine for NBD, as the judge of a disk: it writes, and verifies what it wrote. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './served-disk.js';

/** What the jobs without a time write, from the start of the disk. */
export const FIO_BYTES = 24 << 20;
/** Nothing that is bounded by bytes is about speed. */
const TIMEOUT_MS = 600_000;

/** Runs fio's job `verify` on the export at `uri`; what it printed. */
async function fio(uri: string, args: readonly string[], timeoutMs: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-fio-'));
  const job = ['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite'];
  job.push('--iodepth=16', '--verify=crc32c', '--verify_fatal=1');
  try {
    return await run('fio', [...job, ...args], { cwd: folder, timeoutMs });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** fio writes 4 KiB at a time for so long, and verifies what it wrote as it goes and at the end. */
export function fioVerify(uri: string, seconds: number, ...more: string[]): Promise<string> {
  const args = ['--bs=4k', '--size=32M', '--time_based', `--runtime=${seconds}`];
  args.push('--rate_iops=1500', '--verify_backlog=256', ...more);
  return fio(uri, args, (seconds + 90) * 1000);
}

/** fio writes blocks of 4 KiB to 1 MiB, each place once, and verifies all of them. */
export function fioVerifySizes(uri: string): Promise<string> {
  return fio(uri, ['--bsrange=4k-1m', `--size=${FIO_BYTES}`, '--do_verify=1'], TIMEOUT_MS);
}

/**
 * fio writes 24 MiB, 4 KiB at a time and at a pace that takes at least four seconds, flushes after
 * every 64 writes, and verifies what it wrote as it goes and at the end. A slow machine makes it
 * longer.
 */
export function fioVerifyPaced(uri: string): Promise<string> {
  const args = ['--bs=4k', `--size=${FIO_BYTES}`, '--rate_iops=1500', '--verify_backlog=256'];
  return fio(uri, [...args, '--fsync=64', '--do_verify=1'], TIMEOUT_MS);
}

/** The error of each of its jobs; `0` for one that met none. */
export function errorsIn(fio: string): string[] {
  return [...fio.matchAll(/err= ?(\d+)/g)].map((match) => match[1] ?? '');
}
