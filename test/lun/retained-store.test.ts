import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { shareSlabs } from '../../src/io/native.js';
import { LeftJournals } from '../../src/lun/left-journals.js';
import {
  type OwnJournal,
  RetainedStore,
  retainedDirectoryOf,
} from '../../src/lun/retained-store.js';
import { cannotMount, MemoryFolder } from '../helpers/memory-folder.js';

const SESSION = '00112233445566aa';
const OTHER = '00112233445566bb';
const INDEX_BYTES = 10_000;
const BOOT = 'a-boot';

let folder: MemoryFolder;
let directory: string;
let warnings: string[];
beforeEach(() => {
  folder = new MemoryFolder();
  directory = join(folder.path, 'run', 'retained');
  warnings = [];
});
afterEach(() => folder[Symbol.dispose]());

const onWarning = (message: string) => void warnings.push(message);

/** What a process has: its slabs and its journals. */
function process_(place: string | null = directory): { store: RetainedStore; pool: SlabPool } {
  const pool = new SlabPool({ slabsMax: 8 });
  shareSlabs(pool);
  const options = { directory: place, bootId: BOOT, indexBytes: INDEX_BYTES, onWarning };
  return { store: new RetainedStore({ ...options, pool }), pool };
}

/** What the process after one that was killed sees of the directory. */
function leftIn(place: string, others: { bootId?: string; indexBytes?: number } = {}) {
  const options = { bootId: BOOT, indexBytes: INDEX_BYTES, onWarning };
  return new LeftJournals({ directory: place, ...options, ...others });
}

/** The directory as a process that is killed at this instant leaves it. */
const killed = () => folder.asLeft(directory, `left-${readdirSync(folder.path).length}`);

/** A journal that counts. */
function begun(store: RetainedStore, lun: number, isDevice = true): OwnJournal {
  const journal = store.open({ sessionId: SESSION, lun, isDevice });
  journal.begin();
  return journal;
}

/** A process has retained something of LUN 0 of the session, and is killed. */
function killedWriter(luns: readonly number[] = [0]): string {
  const { store, pool } = process_();
  const slab = pool.acquire();
  pool.buffer(slab).fill(0x42);
  for (const lun of luns)
    begun(store, lun)
      .memory()
      ?.fill(lun + 1);
  const place = killed();
  rmSync(directory, { recursive: true });
  return place;
}

const files = (place: string) => readdirSync(place).sort();
const journalIn = (place: string) => {
  const found = files(place).find((name) => name.endsWith('.index'));
  return join(place, found ?? 'none');
};

describe('what a killed process has retained', () => {
  it('the next process finds the journal of the session and LUN it asks for', () => {
    const place = killedWriter([0, 3]);
    const left = leftIn(place);
    const { journals, hasLoss } = left.recover(SESSION, 3);
    expect([journals.length, hasLoss]).toEqual([1, false]);
    expect(journals[0]?.index.equals(Buffer.alloc(INDEX_BYTES, 4))).toBe(true);
    expect([journals[0]?.hasSlab(0), journals[0]?.hasSlab(1)]).toEqual([true, false]);
    expect(journals[0]?.slab(0).equals(Buffer.alloc(SLAB_BYTES, 0x42))).toBe(true);
    expect(left.recover(SESSION, 1).journals).toEqual([]);
    expect(left.recover(OTHER, 0).journals).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('the journal is empty if nothing was written: the next process knows that, too', () => {
    begun(process_().store, 0);
    const { journals, hasLoss } = leftIn(killed()).recover(SESSION, 0);
    expect(journals.map(({ index }) => index.every((byte) => byte === 0))).toEqual([true]);
    expect(hasLoss).toBe(false);
  });

  it('journals come in the order in which they were begun', () => {
    const first = process_();
    const second = process_();
    begun(second.store, 0).memory()?.fill(2);
    begun(first.store, 0).memory()?.fill(1);
    begun(process_().store, 0).memory()?.fill(3);
    const { journals } = leftIn(killed()).recover(SESSION, 0);
    expect(journals.map(({ index }) => index[0])).toEqual([2, 1, 3]);
  });

  it('a journal goes when it is on the disk, and the slabs go with the last journal of them', () => {
    const place = killedWriter([0, 1]);
    const left = leftIn(place);
    left.recover(SESSION, 0).journals[0]?.drained();
    expect(files(place).map((name) => name.replace(/^.*\./, ''))).toEqual(['index', 'slabs']);
    left.recover(SESSION, 1).journals[0]?.drained();
    expect(files(place)).toEqual([]);
  });

  it('a journal stays until it is on the disk, even if the process that found it is killed', () => {
    const place = killedWriter();
    expect(leftIn(place).recover(SESSION, 0).journals).toHaveLength(1);
    expect(leftIn(place).recover(SESSION, 0).journals).toHaveLength(1);
  });

  it('the files of a journal are for their user alone, whatever the umask says', () => {
    const before = process.umask(0o000);
    begun(process_().store, 0).memory();
    process.umask(before);
    const modes = files(directory).map((name) => statSync(join(directory, name)).mode & 0o777);
    expect([statSync(directory).mode & 0o777, ...modes]).toEqual([0o700, 0o600, 0o600]);
  });
});

describe('files of a living process', () => {
  it('a process touches no file of another one that lives', () => {
    begun(process_().store, 0).memory()?.fill(1);
    const before = files(directory);
    const other = process_().store;
    expect(other.left.recover(SESSION, 0)).toEqual({ journals: [], hasLoss: false });
    other.left.remove(SESSION, 0);
    other.left.collect(() => false);
    expect(files(directory)).toEqual(expect.arrayContaining(before));
    expect(warnings).toEqual([]);
  });

  it('go with the journal at a clean end, and the slab file with the process', () => {
    const { store } = process_();
    const journal = begun(store, 0);
    journal.memory()?.fill(1);
    journal.remove();
    store.close();
    expect(files(directory)).toEqual([]);
  });

  it('the slab file stays at the end of a process that leaves a journal', () => {
    const { store } = process_();
    begun(store, 0).memory()?.fill(1);
    store.close();
    expect(leftIn(killed()).recover(SESSION, 0).journals).toHaveLength(1);
  });
});

describe('collecting', () => {
  it('slabs of a dead process that no journal names are removed', () => {
    process_();
    const place = killed();
    expect(files(place)).toHaveLength(1);
    leftIn(place).collect(() => true);
    expect(files(place)).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('a journal that a process will come for stays, and one whose disk is gone is set aside', () => {
    const place = killedWriter([0, 1]);
    leftIn(place).collect((sessionId, lun) => sessionId === SESSION && lun === 1);
    expect(warnings).toEqual([expect.stringContaining(`LUN 0 of session ${SESSION}`)]);
    expect(warnings[0]).toContain('because the kernel does not have their device any more');
    const left = leftIn(place);
    expect(left.recover(SESSION, 0)).toEqual({ journals: [], hasLoss: false });
    expect(left.recover(SESSION, 1).journals).toHaveLength(1);
  });

  it('only the last four journals that were set aside are kept', () => {
    const place = killedWriter([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    leftIn(place).collect(() => false);
    const stale = files(place).filter((name) => name.endsWith('.stale'));
    expect(stale).toHaveLength(4);
    expect(files(place)).toHaveLength(5);
    for (const name of stale) unlinkSync(join(place, name));
    leftIn(place).collect(() => false);
    expect(files(place)).toEqual([]);
  });

  it('a file that is not of this product stays', () => {
    const place = killedWriter();
    writeFileSync(join(place, 'notes'), 'mine');
    leftIn(place).collect(() => false);
    expect(readFileSync(join(place, 'notes'), 'utf8')).toBe('mine');
  });
});

describe('a journal that cannot be used', () => {
  /** It is set aside in words, and the process knows that something is lost. */
  function expectSetAside(place: string, why: string, left = leftIn(place)): void {
    expect(left.recover(SESSION, 0)).toEqual({ journals: [], hasLoss: true });
    expect(warnings).toEqual([expect.stringContaining(why)]);
    expect(warnings[0]).toMatch(/set aside as .*\.index\.stale; remove it when/);
    expect(files(place).some((name) => name.endsWith('.index'))).toBe(false);
    expect(leftIn(place).recover(SESSION, 0)).toEqual({ journals: [], hasLoss: false });
  }

  /** Changes bytes of the journal. */
  function patch(place: string, at: number, bytes: Buffer): void {
    const whole = readFileSync(journalIn(place));
    bytes.copy(whole, at);
    writeFileSync(journalIn(place), whole);
  }

  it('one of another boot is set aside', () => {
    const place = killedWriter();
    expectSetAside(place, 'of another boot', leftIn(place, { bootId: 'b' }));
  });

  it('one of a version that is not known is set aside', () => {
    const place = killedWriter();
    patch(place, 4, Buffer.from([9, 0, 0, 0]));
    expectSetAside(place, 'it is of version 9');
  });

  it('one with an index of another size is set aside', () => {
    const place = killedWriter();
    expectSetAside(place, 'the length of their file', leftIn(place, { indexBytes: 5000 }));
  });

  it('one that was cut short is set aside', () => {
    const place = killedWriter();
    truncateSync(journalIn(place), 8192);
    expectSetAside(place, 'the length of their file, 8192 bytes');
  });

  it('one that is damaged at its beginning is set aside', () => {
    const place = killedWriter();
    patch(place, 60, Buffer.from('x'));
    expectSetAside(place, 'its beginning is damaged');
  });

  it('one under the name of another LUN is set aside', () => {
    const place = killedWriter([7]);
    renameSync(journalIn(place), journalIn(place).replace(`${SESSION}-7`, `${SESSION}-0`));
    expectSetAside(place, `they are of LUN 7 of session ${SESSION}`);
  });

  it('one whose slab file is gone, cut short or another user’s is set aside', () => {
    for (const spoil of [
      (slabs: string) => unlinkSync(slabs),
      (slabs: string) => truncateSync(slabs, 3 << 20),
      (slabs: string) => chmodSync(slabs, 0o644),
    ]) {
      warnings = [];
      const place = killedWriter();
      spoil(join(place, files(place).find((name) => name.endsWith('.slabs')) ?? ''));
      expectSetAside(place, 'because');
    }
  });

  it('a link or a pipe in its place is set aside, and never opened', () => {
    for (const make of [
      (path: string) => symlinkSync('/etc/passwd', path),
      (path: string) => execFileSync('mkfifo', ['-m', '0600', path]),
      (path: string) => mkdirSync(path),
    ]) {
      warnings = [];
      const place = killedWriter();
      const path = journalIn(place);
      unlinkSync(path);
      make(path);
      expectSetAside(place, 'because');
      if (statSync(`${path}.stale`).isDirectory()) rmdirSync(`${path}.stale`);
    }
  });

  it('one that its process was killed in the making of is none, and goes without a word', () => {
    const place = killedWriter();
    patch(place, 0, Buffer.alloc(4096));
    expect(leftIn(place).recover(SESSION, 0)).toEqual({ journals: [], hasLoss: false });
    expect([files(place), warnings]).toEqual([[], []]);
  });
});

describe('where nothing can outlive the process', () => {
  function expectNone(place: string | null, why: string): void {
    const { store, pool } = process_(place);
    const [first, second] = [begun(store, 0), begun(store, 1)];
    expect(warnings).toEqual([]);
    expect([first.memory(), second.memory()]).toEqual([null, null]);
    expect(warnings).toEqual([expect.stringContaining(why)]);
    pool.buffer(pool.acquire()).fill(1);
    first.remove();
    store.left.collect(() => true);
    store.close();
  }

  it('a directory that is on a disk is reported once, when there is something to retain', () => {
    const place = mkdtempSync('/var/tmp/iscsi-nbd-test-');
    expectNone(place, `${place} is not in memory: mount a tmpfs there`);
    expect(readdirSync(place)).toEqual([]);
    rmdirSync(place);
  });

  it('a directory that others may read or write is not used', () => {
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, 0o755);
    expectNone(directory, 'is no directory of this user alone');
    expect(files(directory)).toEqual([]);
  });

  it('a link in the place of the directory is not followed', () => {
    mkdirSync(join(folder.path, 'run'));
    mkdirSync(join(folder.path, 'elsewhere'), { mode: 0o700 });
    symlinkSync(join(folder.path, 'elsewhere'), directory);
    expectNone(directory, 'is no directory of this user alone');
    expect(files(join(folder.path, 'elsewhere'))).toEqual([]);
  });

  it('a user without a runtime directory gets a warning with the setting', () => {
    expectNone(null, 'XDG_RUNTIME_DIR is not set');
  });

  it.skipIf(cannotMount)(
    'a full directory is reported, and the next process knows of the gap',
    () => {
      const place = folder.mount('small', 1 << 20);
      const { store } = process_(place);
      const [first, second] = [begun(store, 0), begun(store, 1)];
      expect(first.memory()?.length).toBe(INDEX_BYTES);
      expect(() => writeFileSync(join(place, 'more'), Buffer.alloc(1 << 20))).toThrow('ENOSPC');
      expect(second.memory()).toBe(null);
      expect(begun(store, 2).memory()).toBe(null);
      expect(warnings).toEqual([expect.stringContaining(`there is no room in ${place} (ENOSPC)`)]);
      const left = leftIn(folder.asLeft(place, 'left'));
      expect(left.recover(SESSION, 0).journals).toHaveLength(1);
      expect(left.recover(SESSION, 1)).toEqual({ journals: [], hasLoss: true });
    },
  );
});

describe('the directory of retained writes', () => {
  it('the directory is in /run for root, and in the runtime directory of a user', () => {
    expect(retainedDirectoryOf({}, 0)).toBe('/run/iscsi-nbd/retained');
    const user = { XDG_RUNTIME_DIR: '/run/user/7' };
    expect(retainedDirectoryOf(user, 7)).toBe('/run/user/7/iscsi-nbd/retained');
    expect(retainedDirectoryOf({}, 7)).toBe(null);
    expect(retainedDirectoryOf({ ISCSI_NBD_RETAINED: '/dev/shm/x' }, 0)).toBe('/dev/shm/x');
    expect(existsSync('/dev/shm/x')).toBe(false);
  });
});
