import { randomBytes } from 'node:crypto';
import { lstatSync, mkdirSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, isForeignFault, UsageError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import { RETAINED_INDEX_BYTES } from '../bridge/retained/retained-index.js';
import { currentBootId } from '../io/boot-id.js';
import { listConfigured } from '../io/nbd-sysfs.js';
import { SharedFile } from '../io/shared-memory.js';
import { SharedSlabs, slabFileBytes } from '../io/shared-slabs.js';
import { deviceIdentifier } from './device-identifier.js';
import { LeftJournals, type LeftJournalsOptions } from './left-journals.js';
import {
  beginJournal,
  type JournalFacts,
  journalBytes,
  journalName,
  markNotWhole,
  PREAMBLE_BYTES,
  slabsName,
  writePreamble,
} from './retained-files.js';
import { threadRuntime } from './runtime.js';

const RUN_DIRECTORY = '/run/iscsi-nbd/retained';
/** f_type of tmpfs, see statfs(2): a file elsewhere would be written to a disk. */
const TMPFS_MAGIC = 0x0102_1994;
/** A new slab file that another process examines just now is one of another name. */
const OWN_TRIES_MAX = 16;

type Environment = Readonly<Record<string, string | undefined>>;

/** Where retained writes outlive their process: in memory of the system. Null without a place. */
export function retainedDirectoryOf(
  environment: Environment,
  uid = process.getuid?.(),
): string | null {
  const given = environment['ISCSI_NBD_RETAINED'];
  if (given?.startsWith('/')) return given;
  if (uid === 0) return RUN_DIRECTORY;
  const runtime = environment['XDG_RUNTIME_DIR'];
  return runtime?.startsWith('/') ? join(runtime, 'iscsi-nbd', 'retained') : null;
}

export type JournalSubject = Pick<JournalFacts, 'sessionId' | 'lun' | 'isDevice'>;

/** The memory of one LUN that the next process finds. */
export type OwnJournal = {
  /**
   * Room for its index, zeros; asked for once, when there is something to be noted. Null
   * without one: the next process then knows that it does not know everything, and a warning has
   * said why.
   */
  readonly memory: () => Buffer | null;
  /** It counts from now on: processes that come later take what it says for all there is. */
  readonly begin: () => void;
  /** The LUN has nothing any more that would have to be written again. */
  readonly remove: () => void;
};

export type RetainedStoreOptions = LeftJournalsOptions & {
  /** Of this thread; it has made no slab yet. */
  readonly pool: SlabPool;
};

/**
 * Retained writes of this process, as files in memory: they outlive it if it is killed, and not the
 * machine. Several processes share the directory.
 */
export class RetainedStore {
  /** What processes before this one have left. */
  readonly left: LeftJournals;
  readonly #options: RetainedStoreOptions;
  /** Why nothing can outlive this process; null if it can. */
  readonly #whyNot: string | null;
  /** Why some slabs are ordinary memory. */
  #whyPartly: string | null = null;
  /** Something is retained, or was. */
  #hasMemory = false;
  #owner = '';
  #count = 0;
  #isTold = false;

  /** Never throws because of the system: without a place nothing outlives the process. */
  constructor(options: RetainedStoreOptions) {
    this.#options = options;
    this.left = new LeftJournals(options);
    this.#whyNot = this.#begin();
  }

  /**
   * The journal of a LUN, empty, made before its disk is of use to a client: the next process
   * learns from it that nothing was retained, if nothing was.
   */
  open({ sessionId, lun, isDevice }: JournalSubject): OwnJournal {
    const { indexBytes, bootId, directory } = this.#options;
    const none = (why: string) => {
      return { memory: () => this.#tell(why), begin: () => undefined, remove: () => undefined };
    };
    if (this.#whyNot !== null || directory === null) return none(this.#whyNot ?? '');
    this.#count += 1;
    const name = journalName({ sessionId, lun, owner: this.#owner }, this.#count);
    const made = attempt(() => makeJournal(join(directory, name), indexBytes));
    if (typeof made === 'string') {
      this.left.unlink(name);
      return none(noRoom(directory, made));
    }
    const { file, bytes } = made;
    const slabs = slabsName(this.#owner);
    const madeAtNs = String(process.hrtime.bigint());
    const subject = { sessionId, lun, isDevice };
    writePreamble(bytes, { bootId, ...subject, slabs, indexBytes, madeAtNs });
    const memory = () => {
      const index = attempt(() => {
        file.reserve(PREAMBLE_BYTES, indexBytes);
        return bytes.subarray(PREAMBLE_BYTES, PREAMBLE_BYTES + indexBytes);
      });
      if (typeof index !== 'string') {
        this.#hasMemory = true;
        if (this.#whyPartly !== null) this.#tell(this.#whyPartly);
        return index;
      }
      markNotWhole(bytes);
      return this.#tell(noRoom(directory, index));
    };
    const remove = () => {
      file.close();
      this.left.unlink(name);
    };
    return { memory, begin: () => beginJournal(bytes), remove };
  }

  /** A process that had the session is about to end: its files are not free yet. */
  isAwaited(sessionId: string): boolean {
    const others = this.left.found().journals.filter((each) => each.sessionId === sessionId);
    return others.some(({ owner }) => owner !== this.#owner && this.left.isLiving(owner));
  }

  /** At the end of the process: what no journal needs goes. */
  close(): void {
    if (this.#whyNot !== null) return;
    const { journals } = this.left.found();
    if (journals.some(({ owner }) => owner === this.#owner)) return;
    this.left.unlink(slabsName(this.#owner));
  }

  /** Makes the directory and the slab file. Returns why that cannot be; null if it is done. */
  #begin(): string | null {
    const { directory, pool } = this.#options;
    if (directory === null) return 'XDG_RUNTIME_DIR is not set: set it, or ISCSI_NBD_RETAINED';
    if (pool.buffers.length > 0) return 'the memory of this process is its own already';
    try {
      requireDirectory(directory);
      const file = this.#ownFile(directory, slabFileBytes(pool.slabsMax));
      new SharedSlabs(pool, file, (why) => {
        this.#whyPartly = noRoom(directory, why);
        if (this.#hasMemory) this.#tell(this.#whyPartly);
      });
      return null;
    } catch (error) {
      if (isForeignFault(error)) return error.message;
      const errno = errnoOf(error);
      if (errno === '') throw error;
      return `${directory} cannot be used (${errno})`;
    }
  }

  /** A new slab file that says that this process lives. */
  #ownFile(directory: string, lengthBytes: number): SharedFile {
    for (let tries = 0; tries < OWN_TRIES_MAX; tries += 1) {
      const owner = randomBytes(8).toString('hex');
      const file = SharedFile.make(join(directory, slabsName(owner)), lengthBytes);
      // A process that removes what dead processes left may have come between.
      if (file.tryOwn() && !file.isUnlinked) {
        this.#owner = owner;
        return file;
      }
      file.close();
    }
    throw new UsageError(`${directory} cannot be used: another process locks its files`);
  }

  #tell(why: string): null {
    if (this.#isTold) return null;
    this.#isTold = true;
    this.#options.onWarning(
      'acknowledged writes that the target has not flushed yet are lost if this process and the ' +
        `target both fail before the next flush, because ${why}`,
    );
    return null;
  }
}

/** A journal with room for its preamble. */
function makeJournal(path: string, indexBytes: number): { file: SharedFile; bytes: Buffer } {
  const file = SharedFile.make(path, journalBytes(indexBytes));
  try {
    file.reserve(0, PREAMBLE_BYTES);
    return { file, bytes: file.map(0, file.lengthBytes) };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The result, or the errno name of what the system refuses. */
function attempt<T extends object>(action: () => T): T | string {
  try {
    return action();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === '') throw error;
    return errno;
  }
}

/** The store of a process that serves, of the slabs of this thread. */
export async function openRetainedStore(options: {
  readonly directory: string | null;
  readonly onWarning: (message: string) => void;
}): Promise<RetainedStore> {
  const { pool } = threadRuntime();
  const bootId = await currentBootId();
  const store = new RetainedStore({ ...options, pool, bootId, indexBytes: RETAINED_INDEX_BYTES });
  const devices = new Set((await listConfigured()).map(({ identifier }) => identifier));
  store.left.collect((sessionId, lun) => devices.has(deviceIdentifier(sessionId, lun)));
  process.once('exit', () => store.close());
  return store;
}

/** Throws UsageError for a directory that retained writes must not be in. */
function requireDirectory(directory: string): void {
  mkdirSync(dirname(directory), { recursive: true, mode: 0o755 });
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
  const facts = lstatSync(directory);
  const isOurs = facts.isDirectory() && facts.uid === process.geteuid?.();
  if (!isOurs || (facts.mode & 0o077) !== 0) {
    throw new UsageError(`${directory} is no directory of this user alone: remove it`);
  }
  if (statfsSync(directory).type !== TMPFS_MAGIC) {
    throw new UsageError(`${directory} is not in memory: mount a tmpfs there`);
  }
}

function noRoom(directory: string, why: string): string {
  return (
    `there is no room in ${directory} (${why}): make it larger, for example with ` +
    '`mount -o remount,size=512M /run`'
  );
}
