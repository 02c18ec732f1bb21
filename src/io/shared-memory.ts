import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  type Stats,
} from 'node:fs';
import { invariant, UsageError } from '../base/errors.js';
import { loadedAddon } from './native.js';

/** The addon's calls for memory in files; they throw in Node's shape of a failed system call. */
interface SharedMemoryAddon {
  reserveRange(fd: number, offset: number, length: number): void;
  punchRange(fd: number, offset: number, length: number): void;
  tryLock(fd: number, isExclusive: boolean): boolean;
  mapRange(fd: number, offset: number, length: number, isWritable: boolean): ArrayBuffer;
  touchRange(memory: ArrayBuffer): void;
  unmapRange(memory: ArrayBuffer): void;
}

const addon = loadedAddon as SharedMemoryAddon;

/** Takes a lock (flock(2)) without waiting; false if another open file has it. */
export function tryLock(fd: number, isExclusive: boolean): boolean {
  return addon.tryLock(fd, isExclusive);
}

/** The largest page of the systems there are; lengths and offsets of mappings are multiples. */
export const MAPPING_BYTES = 1 << 16;

/** Without O_NONBLOCK the open of a pipe would wait for its writer. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const MAKE_FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const MODE = 0o600;

/**
 * A file in memory whose bytes are mapped, so that they outlive a process that is killed at any
 * instant. Nothing of it is in a core file. Ranges are reserved before they are touched: without
 * room that is an error (ENOSPC), and not the end of the process by SIGBUS.
 */
export class SharedFile {
  readonly path: string;
  readonly lengthBytes: number;
  readonly #isWritable: boolean;
  #fd: number;

  private constructor(
    path: string,
    parts: { fd: number; lengthBytes: number; isWritable: boolean },
  ) {
    this.path = path;
    this.#fd = parts.fd;
    this.lengthBytes = parts.lengthBytes;
    this.#isWritable = parts.isWritable;
  }

  /** Makes a new file of zeros without room, for this user only. Throws what the system says. */
  static make(path: string, lengthBytes: number): SharedFile {
    const fd = openSync(path, MAKE_FLAGS, MODE);
    try {
      fchmodSync(fd, MODE);
      ftruncateSync(fd, lengthBytes);
      return new SharedFile(path, { fd, lengthBytes, isWritable: true });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Opens one that a process before this one made, to be read. Throws UsageError when it is not
   * what such a process makes, and what the system says.
   */
  static open(path: string): SharedFile {
    const fd = openSync(path, READ_FLAGS);
    try {
      const facts = fstatSync(fd);
      const why = whyForeign(facts);
      if (why !== null) throw new UsageError(`${path} ${why}`, { code: 'ERR_FOREIGN_FILE' });
      return new SharedFile(path, { fd, lengthBytes: facts.size, isWritable: false });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Takes the lock that says that the owner lives, until `close` or the end of the process. False
   * if another process examines the file just now.
   */
  tryOwn(): boolean {
    return addon.tryLock(this.#open(), true);
  }

  /** The process that owns the file lives. Not for this process's own files. */
  isOwned(): boolean {
    return !addon.tryLock(this.#open(), false);
  }

  /** The file was removed from its directory. */
  get isUnlinked(): boolean {
    return fstatSync(this.#open()).nlink === 0;
  }

  /** Throws what the system says: ENOSPC without room. */
  reserve(offset: number, length: number): void {
    addon.reserveRange(this.#open(), offset, length);
  }

  /** Gives the room of a range back; it has to be reserved before it is touched again. */
  punch(offset: number, length: number): void {
    addon.punchRange(this.#open(), offset, length);
  }

  /**
   * The bytes of a range, which stay mapped after `close`, until `unmap` or until the buffer has
   * no reference. A write to those of a file that was opened ends the process.
   */
  map(offset: number, length: number): Buffer {
    invariant(offset + length <= this.lengthBytes, `a mapping beyond the end of ${this.path}`);
    return Buffer.from(addon.mapRange(this.#open(), offset, length, this.#isWritable));
  }

  /** A copy of the bytes of a range; what has no room reads as zeros, and takes none. */
  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const got = readSync(this.#open(), bytes, done, length - done, offset + done);
      if (got === 0) break;
      done += got;
    }
    return bytes.subarray(0, done);
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #open(): number {
    invariant(this.#fd >= 0, `${this.path} is closed`);
    return this.#fd;
  }
}

/** Has the pages of a mapping made now, which costs less than one by one when they are touched. */
export function touchMapping(buffer: Buffer): void {
  addon.touchRange(buffer.buffer as ArrayBuffer);
}

/** The buffer, which `SharedFile.map` made, has no bytes from now on. */
export function unmapBuffer(buffer: Buffer): void {
  addon.unmapRange(buffer.buffer as ArrayBuffer);
}

/** Why the file is none that this user's processes have made; null when it may be one. */
function whyForeign(facts: Stats): string | null {
  if (!facts.isFile()) return 'is no regular file';
  if (facts.uid !== process.geteuid?.()) return `belongs to the user ${facts.uid}`;
  const mode = facts.mode & 0o7777;
  return mode === MODE ? null : `has the mode ${mode.toString(8)} in place of 600`;
}
