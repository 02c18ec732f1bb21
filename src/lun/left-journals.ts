import { lstatSync, readdirSync, renameSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, isForeignFault } from '../base/errors.js';
import { SharedFile } from '../io/shared-memory.js';
import { LeftSlabs } from '../io/shared-slabs.js';
import {
  type FoundFiles,
  filesAmong,
  type JournalFacts,
  type JournalName,
  journalBytes,
  PREAMBLE_BYTES,
  readPreamble,
  slabsName,
} from './retained-files.js';

/** Journals that stay for a person to look at; each may keep a slab file. */
const STALE_MAX = 4;

/** Others may have written to its disk since. */
export const DEVICE_GONE = 'the kernel does not have their device any more';

export type LeftJournalsOptions = {
  /** Null: no process leaves anything. */
  readonly directory: string | null;
  /** /proc/sys/kernel/random/boot_id of this boot of the machine. */
  readonly bootId: string;
  /** Bytes of the index of a journal. */
  readonly indexBytes: number;
  readonly onWarning: (message: string) => void;
};

/** What a process that is gone has left of one LUN. */
export type LeftJournal = {
  /** On the clock of the boot. */
  readonly madeAtNs: bigint;
  readonly isDevice: boolean;
  /** A copy of its index. */
  readonly index: Buffer;
  /** The slab was in readable memory when the process ended. */
  readonly hasSlab: (slab: number) => boolean;
  /** Its memory, of which no byte may be written; it has none after `drained` and `setAside`. */
  readonly slab: (slab: number) => Buffer;
  /**
   * All of it is on the disk, or of no use any more: its files go. To be called before anything
   * newer is acknowledged: a journal that stays is written again by the next process.
   */
  readonly drained: () => void;
  /** It is not to be written again: it is set aside, and a warning says why. */
  readonly setAside: (why: string) => void;
};

/** What processes that are gone have left of a LUN. */
export type Recovered = {
  /** Oldest first. */
  readonly journals: readonly LeftJournal[];
  /** There was one that cannot be used: it is set aside, and a warning has said why. */
  readonly hasLoss: boolean;
};

type Opened = { readonly index: Buffer; readonly slabs: LeftSlabs; readonly facts: JournalFacts };

/** Journals of retained writes whose processes are gone. Those of living ones are left alone. */
export class LeftJournals {
  readonly #options: LeftJournalsOptions;
  /** Slab files, and for how many journals they are open. */
  readonly #slabs = new Map<string, { readonly slabs: LeftSlabs; users: number }>();

  constructor(options: LeftJournalsOptions) {
    this.#options = options;
  }

  recover(sessionId: string, lun: number): Recovered {
    const journals: LeftJournal[] = [];
    let hasLoss = false;
    for (const name of this.#of(sessionId, lun)) {
      const opened = this.#open(name);
      if (opened === 'unusable') hasLoss = true;
      else if (opened !== null) journals.push(opened);
    }
    return { journals: journals.sort((a, b) => Number(a.madeAtNs - b.madeAtNs)), hasLoss };
  }

  /** LUNs of the session that something was left of. */
  lunsOf(sessionId: string): ReadonlySet<number> {
    const ours = this.found().journals.filter((each) => each.sessionId === sessionId);
    return new Set(ours.filter(({ owner }) => !this.isLiving(owner)).map(({ lun }) => lun));
  }

  /** The LUN has nothing any more that would have to be written again. */
  remove(sessionId: string, lun: number): void {
    for (const { name, owner } of this.#of(sessionId, lun)) {
      this.unlink(name);
      this.#dropSlabs(owner);
    }
  }

  /**
   * Removes what no journal needs, and sets journals aside that no process can use: broken ones,
   * and those of kernel devices that `hasDevice` does not know any more.
   */
  collect(hasDevice: (sessionId: string, lun: number) => boolean): void {
    const { journals, owners } = this.found();
    const dead = new Set<string>();
    for (const owner of [...owners, ...journals.map((each) => each.owner)]) {
      if (!this.isLiving(owner)) dead.add(owner);
    }
    for (const name of journals) {
      const opened = dead.has(name.owner) ? this.#open(name) : null;
      if (opened === null || opened === 'unusable') continue;
      if (!opened.isDevice || hasDevice(name.sessionId, name.lun)) this.#letGo(name.owner);
      else opened.setAside(DEVICE_GONE);
    }
    for (const owner of dead) this.#dropSlabs(owner);
  }

  found(): FoundFiles {
    const { directory } = this.#options;
    if (directory === null) return filesAmong([]);
    try {
      return filesAmong(readdirSync(directory));
    } catch (error) {
      if (errnoOf(error) === '') throw error;
      return filesAmong([]);
    }
  }

  /** Throws when a file stays: it must not be found again. */
  unlink(name: string): void {
    try {
      unlinkSync(this.#pathOf(name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  isLiving(owner: string): boolean {
    try {
      const file = SharedFile.open(this.#pathOf(slabsName(owner)));
      try {
        return file.isOwned();
      } finally {
        file.close();
      }
    } catch (error) {
      // A living process has a slab file that can be opened.
      if (isForeignFault(error) || errnoOf(error) !== '') return false;
      throw error;
    }
  }

  #of(sessionId: string, lun: number): readonly JournalName[] {
    const all = this.found().journals;
    const ours = all.filter((each) => each.sessionId === sessionId && each.lun === lun);
    return ours.filter(({ owner }) => !this.isLiving(owner));
  }

  /** Null for one that its process had not begun, and so has nothing in it; it is removed. */
  #open(name: JournalName): LeftJournal | null | 'unusable' {
    const read = this.#read(name);
    if (read === null) {
      this.unlink(name.name);
      this.#dropSlabs(name.owner);
      return null;
    }
    if ('why' in read) {
      this.#setAside(name, read.why);
      return 'unusable';
    }
    const { index, slabs, facts } = read;
    return {
      madeAtNs: BigInt(facts.madeAtNs),
      isDevice: facts.isDevice,
      index,
      hasSlab: (slab) => slabs.has(slab),
      slab: (slab) => slabs.slab(slab),
      drained: () => {
        this.unlink(name.name);
        this.#letGo(name.owner);
        this.#dropSlabs(name.owner);
      },
      setAside: (why) => {
        this.#letGo(name.owner);
        this.#setAside(name, why);
      },
    };
  }

  #read(name: JournalName): Opened | { readonly why: string } | null {
    try {
      const file = SharedFile.open(this.#pathOf(name.name));
      try {
        const preamble = readPreamble(file.read(0, PREAMBLE_BYTES));
        if (preamble.kind === 'unbegun') return null;
        if (preamble.kind === 'stale') return preamble;
        const { facts } = preamble;
        const why = this.#whyOfNoUse(name, facts, file.lengthBytes);
        if (why !== null) return { why };
        const index = file.read(PREAMBLE_BYTES, facts.indexBytes);
        return { index, slabs: this.#use(name.owner), facts };
      } finally {
        file.close();
      }
    } catch (error) {
      if (isForeignFault(error)) return { why: error.message };
      const errno = errnoOf(error);
      if (errno === '') throw error;
      return { why: `their files cannot be read (${errno})` };
    }
  }

  #whyOfNoUse(name: JournalName, facts: JournalFacts, lengthBytes: number): string | null {
    const { bootId, indexBytes } = this.#options;
    if (facts.bootId !== bootId) return 'they are of another boot of the machine';
    const isNamedSo = facts.sessionId === name.sessionId && facts.lun === name.lun;
    if (!isNamedSo || facts.slabs !== slabsName(name.owner)) {
      return `they are of LUN ${facts.lun} of session ${facts.sessionId}`;
    }
    const isWhole = facts.indexBytes === indexBytes && lengthBytes === journalBytes(indexBytes);
    return isWhole ? null : `the length of their file, ${lengthBytes} bytes, is wrong`;
  }

  /** One more journal needs the slab file. */
  #use(owner: string): LeftSlabs {
    const known = this.#slabs.get(owner);
    if (known !== undefined) {
      known.users += 1;
      return known.slabs;
    }
    const slabs = LeftSlabs.open(this.#pathOf(slabsName(owner)));
    this.#slabs.set(owner, { slabs, users: 1 });
    return slabs;
  }

  #letGo(owner: string): void {
    const known = this.#slabs.get(owner);
    if (known === undefined) return;
    known.users -= 1;
    if (known.users > 0) return;
    this.#slabs.delete(owner);
    known.slabs.close();
  }

  #setAside(name: JournalName, why: string): void {
    const path = this.#pathOf(name.name);
    renameSync(path, `${path}.stale`);
    this.#options.onWarning(
      'acknowledged writes that a process before this one kept for LUN ' +
        `${name.lun} of session ${name.sessionId} are not written again, because ${why}. ` +
        `They are set aside as ${path}.stale; remove it when you do not need it`,
    );
    const aged = this.found().stale.map((each) => {
      return { ...each, atMs: lstatSync(this.#pathOf(each.name)).ctimeMs };
    });
    aged.sort((a, b) => b.atMs - a.atMs);
    for (const each of aged.slice(STALE_MAX)) {
      this.unlink(each.name);
      this.#dropSlabs(each.owner);
    }
  }

  /** Removes the slab file of a dead process that no journal names any more. */
  #dropSlabs(owner: string): void {
    const { journals, stale } = this.found();
    if ([...journals, ...stale].some((each) => each.owner === owner)) return;
    if (!this.isLiving(owner)) this.unlink(slabsName(owner));
  }

  #pathOf(name: string): string {
    return join(this.#options.directory ?? '/', name);
  }
}
