import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, UsageError } from '../base/errors.js';
import { deviceNumberOf } from './device-number.js';
import { tryLock } from './shared-memory.js';

/** What a holder says of itself is short. */
const HOLDER_BYTES_MAX = 64;
/** So often a holder may release the lock just while it is taken. */
const TRIES_MAX = 16;
/** A file of ours; O_NONBLOCK: the open of a pipe that lies there would wait. */
const FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** Others see which files there are, and nothing more (`isHeldByRoot`). */
const ROOT_MODE = 0o711;
const USER_MODE = 0o700;

export type LockPlace = {
  /** Effective user. */
  readonly uid: number;
  /** Directory of the locks of root. */
  readonly ofRoot: string;
  /** That of this user, the same if it is root. */
  readonly own: string;
};

/**
 * A lock that ends with the process that holds it, even if it is killed: flock(2) on a file. It
 * holds between the processes of one user, whatever version of Node runs them; and a user gives way
 * to root. No other user can hold it: root gives way to root only.
 */
export class ProcessLock {
  readonly #fd: number;
  readonly #path: string;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /**
   * Null if a process, this one included, holds it. `holderOf` returns `holder` to other processes.
   * Throws UsageError if the system has no place for it.
   */
  static take(name: string, holder = '', place = lockPlace()): ProcessLock | null {
    const file = fileNameOf(name);
    const path = join(place.own, file);
    const fd = lockedFile(path, place);
    if (fd === null) return null;
    if (place.uid !== 0 && holderAtRoot(join(place.ofRoot, file)) !== null) {
      closeSync(fd);
      return null;
    }
    ftruncateSync(fd);
    writeSync(fd, holder.slice(0, HOLDER_BYTES_MAX), 0, 'latin1');
    return new ProcessLock(fd, path);
  }

  /** What the holder says of itself, or its process if it is root's; empty if it is just gone. */
  static holderOf(name: string, place = lockPlace()): string {
    const file = fileNameOf(name);
    const ofRoot = place.uid === 0 ? null : holderAtRoot(join(place.ofRoot, file));
    if (ofRoot !== null) return ofRoot;
    try {
      return readFileSync(join(place.own, file), 'latin1').slice(0, HOLDER_BYTES_MAX);
    } catch (error) {
      if (errnoOf(error) === '') throw error;
      return '';
    }
  }

  release(): void {
    try {
      unlinkSync(this.#path);
    } catch (error) {
      // It stays, without a lock: the next one takes it.
      if (errnoOf(error) === '') throw error;
    }
    closeSync(this.#fd);
  }
}

/** Its descriptor, with the lock; null if another process has that. */
function lockedFile(path: string, place: LockPlace): number | null {
  try {
    requireDirectory(place);
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const fd = openSync(path, FLAGS, 0o600);
      if (!tryLock(fd, true)) {
        closeSync(fd);
        return null;
      }
      // The one who had it until now has taken the file away: others make a new one.
      if (fstatSync(fd).nlink > 0) return fd;
      closeSync(fd);
    }
    return null;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === '' || error instanceof UsageError) throw error;
    throw new UsageError(
      `the lock ${path} cannot be taken (${errno}): without it two processes might write to one ` +
        'disk. Make room there, or let this user write there',
      { cause: error, exitCode: 1, code: 'ERR_LOCK' },
    );
  }
}

/** Root's is that of the service; a user's does not depend on what the environment says. */
function lockPlace(): LockPlace {
  const uid = process.geteuid?.() ?? 0;
  const ofRoot = '/run/iscsi-nbd/locks';
  if (uid === 0) return { uid, ofRoot, own: ofRoot };
  const runtime = `/run/user/${uid}`;
  const parent = isOwnedBy(runtime, uid) ? `${runtime}/iscsi-nbd` : `/tmp/iscsi-nbd-${uid}`;
  return { uid, ofRoot, own: `${parent}/locks` };
}

function isOwnedBy(path: string, uid: number): boolean {
  try {
    const facts = lstatSync(path);
    return facts.isDirectory() && facts.uid === uid;
  } catch (error) {
    if (errnoOf(error) === '') throw error;
    return false;
  }
}

/** Throws UsageError if others could add or remove files there. */
function requireDirectory({ own, ofRoot, uid }: LockPlace): void {
  const isRoots = own === ofRoot;
  const parent = dirname(own);
  make(parent, isRoots ? 0o755 : USER_MODE);
  make(own, isRoots ? ROOT_MODE : USER_MODE);
  for (const path of [parent, own]) {
    const isOurs = isOwnedBy(path, uid) && (lstatSync(path).mode & 0o022) === 0;
    if (isOurs) continue;
    throw new UsageError(
      `${path} is no directory that only user ${uid} can write to, so locks in it protect ` +
        'nothing: remove it',
      { exitCode: 1, code: 'ERR_LOCK' },
    );
  }
}

/** Makes a directory if there is none, whatever umask says. */
function make(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
    chmodSync(path, mode);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

/**
 * The process that holds root's lock on a file, as /proc/locks says (proc(5)): a user can see that,
 * and cannot hold it. Null if none does.
 */
function holderAtRoot(path: string): string | null {
  try {
    const { dev, ino } = lstatSync(path);
    const { major, minor } = deviceNumberOf(dev);
    const place = `${hex(major)}:${hex(minor)}:${ino}`;
    for (const line of readFileSync('/proc/locks', 'latin1').split('\n')) {
      const [, kind, , access, pid = '', where] = line.split(/\s+/);
      if (kind === 'FLOCK' && access === 'WRITE' && where === place) return pid;
    }
    return null;
  } catch (error) {
    if (errnoOf(error) === '') throw error;
    return null;
  }
}

function hex(number: number): string {
  return number.toString(16).padStart(2, '0');
}

/** Names are of any length and characters; those of files are not. */
function fileNameOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}
