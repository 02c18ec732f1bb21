import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

const TRIES_MAX = 100;
/** A daemon that is asked to leave flushes its disks' caches first. */
const LEAVE_MS_MAX = 20_000;
const LOOK_MS = 20;
/** More than any two numbers and a line's end have. */
const OWNER_BYTES = 64;

/**
 * Ownership of a state directory by one living process. The owner is named by the file
 * `owner.<n>` of the highest `n`. A file is made complete under another name and linked, so there
 * is never half of one; a dead owner's successor links the next number, which only one of many can.
 * Files below one's own are removed only after one's own exists, so a late comer that still saw
 * the old number finds a higher one than its own and gives way. An owner keeps room for its
 * successor's file (`.owner-spare`), who must not fail because the file system is full.
 */
export class StateLock {
  private constructor() {}

  /**
   * Throws UsageError 28 when a living process owns the directory; with `takeOver` that process is
   * made to end first. Throws UsageError 1 when the system does not take the file.
   */
  static async take(
    directory: string,
    options: { readonly takeOver?: boolean } = {},
  ): Promise<StateLock> {
    const draft = join(directory, `.owner-${process.pid}-${randomBytes(4).toString('hex')}`);
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await writeOwner(draft, directory);
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
        await rm(draft);
        await keepRoom(directory);
        return new StateLock();
      }
    } catch (error) {
      const code = errnoOf(error);
      throw code === '' ? error : unusable(directory, code, error);
    } finally {
      await giveBack(draft, directory);
    }
    throw new UsageError(
      `Could not lock state directory ${directory}: other processes keep taking it.`,
      {
        exitCode: EXIT_CODES.busy.code,
        code: 'ERR_STATE_BUSY',
      },
    );
  }
}

/** Makes `draft`, which names this process, of the room that an owner has kept if there is some. */
async function writeOwner(draft: string, directory: string): Promise<void> {
  const startTicks = (await startTicksOf(process.pid)) ?? '';
  const hasRoom = await rename(spareIn(directory), draft).then(
    () => true,
    () => false,
  );
  const file = await open(draft, hasRoom ? 'r+' : 'wx', 0o600);
  try {
    await file.write(`${process.pid} ${startTicks}\n`.padEnd(OWNER_BYTES), 0);
  } finally {
    await file.close();
  }
}

/** A file system that is full already has none to keep. */
async function keepRoom(directory: string): Promise<void> {
  const path = spareIn(directory);
  try {
    const file = await open(path, 'w', 0o600);
    await file.write(' '.repeat(OWNER_BYTES), 0).finally(() => file.close());
  } catch {
    await rm(path, { force: true }).catch(() => undefined);
  }
}

/** What was not needed is room for the next owner, if there is any in it. */
async function giveBack(draft: string, directory: string): Promise<void> {
  const size = await stat(draft).then(
    (found) => found.size,
    () => 0,
  );
  await (size < OWNER_BYTES ? rm(draft, { force: true }) : rename(draft, spareIn(directory)));
}

const spareIn = (directory: string) => join(directory, '.owner-spare');

function unusable(directory: string, code: string, cause: unknown): UsageError {
  return new UsageError(
    `The state directory ${directory} cannot be written (${code}). Make room or give access ` +
      'there, or name another with --state-directory.',
    { cause, exitCode: EXIT_CODES.error.code, code: 'ERR_STATE_DIRECTORY' },
  );
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
