import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

const TRIES_MAX = 100;
/** A daemon that is asked to leave flushes its disks' caches first. */
const LEAVE_MS_MAX = 20_000;
const LOOK_MS = 20;

/**
 * Ownership of a state directory by one living process. The owner is named by the file
 * `owner.<n>` of the highest `n`. A file is made complete under another name and linked, so there
 * is never half of one; a dead owner's successor links the next number, which only one of many can.
 * Files below one's own are removed only after one's own is there, so a late comer that still saw
 * the old number finds a higher one than its own and gives way.
 */
export class StateLock {
  private constructor() {}

  /**
   * Throws UsageError 28 when a living process owns the directory; with `takeOver` that process is
   * made to end first.
   */
  static async take(
    directory: string,
    options: { readonly takeOver?: boolean } = {},
  ): Promise<StateLock> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const startTicks = (await startTicksOf(process.pid)) ?? '';
    const draft = join(directory, `.owner-${process.pid}-${randomBytes(4).toString('hex')}`);
    await writeFile(draft, `${process.pid} ${startTicks}\n`, { mode: 0o600, flag: 'wx' });
    try {
      for (let attempt = 0; attempt < TRIES_MAX; attempt += 1) {
        const highest = (await ownersIn(directory))[0] ?? 0;
        if (highest > 0) await settleOwner(directory, highest, options.takeOver === true);
        const number = highest + 1;
        const path = join(directory, `owner.${number}`);
        if (!(await linked(draft, path))) continue;
        const owners = await ownersIn(directory);
        if (owners[0] !== number) {
          await rm(path, { force: true });
          continue;
        }
        for (const older of owners.slice(1)) {
          await rm(join(directory, `owner.${older}`), { force: true });
        }
        return new StateLock();
      }
    } finally {
      await rm(draft, { force: true });
    }
    throw new UsageError(`The state directory ${directory} is fought over by other processes.`, {
      exitCode: EXIT_CODES.busy.code,
      code: 'ERR_STATE_BUSY',
    });
  }
}

/** Numbers of the owner files, the highest first. */
async function ownersIn(directory: string): Promise<number[]> {
  const names = await readdir(directory);
  return names
    .map((name) => Number(/^owner\.(\d{1,15})$/.exec(name)?.[1] ?? 0))
    .filter((number) => number > 0)
    .sort((left, right) => right - left);
}

async function settleOwner(directory: string, number: number, takeOver: boolean): Promise<void> {
  const text = await readFile(join(directory, `owner.${number}`), 'utf8').catch(() => '');
  const [pid = '', startTicks = ''] = text.trim().split(' ');
  if (!/^\d+$/.test(pid)) return;
  const isAlive = async () => (await startTicksOf(Number(pid))) === startTicks;
  if (!(await isAlive())) return;
  if (takeOver && Number(pid) !== process.pid) {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      if (await ended(Number(pid), signal, isAlive)) return;
    }
  }
  throw new UsageError(
    `Another daemon (process ${pid}) owns the state directory ${directory}. Stop it, or give ` +
      'this one its own with --state-directory.',
    { exitCode: EXIT_CODES.busy.code, code: 'ERR_STATE_BUSY' },
  );
}

async function ended(
  pid: number,
  signal: NodeJS.Signals,
  isAlive: () => Promise<boolean>,
): Promise<boolean> {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
  for (let waitedMs = 0; waitedMs < LEAVE_MS_MAX; waitedMs += LOOK_MS) {
    if (!(await isAlive())) return true;
    await sleep(LOOK_MS);
  }
  return false;
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Field 22 of /proc/PID/stat: process numbers are used again, this pair is not (proc(5)). Null also
 * for one that has ended and that its parent has not looked at yet.
 */
async function startTicksOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? null);
}
