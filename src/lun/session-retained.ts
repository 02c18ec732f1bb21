import { setTimeout as sleep } from 'node:timers/promises';
import { SLAB_BYTES } from '../base/slab.js';
import { type RetainedEntry, readRetainedIndex } from '../bridge/retained/retained-index.js';
import type { RecoveredWrites, RetainedMemory } from '../bridge/retained/retained-memory.js';
import { DEVICE_GONE, type LeftJournal } from './left-journals.js';
import type { JournalSubject, OwnJournal, RetainedStore } from './retained-store.js';

/** A process that is killed lets go of its files after what tells others that it is gone. */
const AWAITED_MS_MAX = 5000;
const AWAITED_RETRY_MS = 10;

/**
 * What the LUNs of one session retain over the end of this process, and what they retained before
 * it. Of what a process before this one left, each LUN takes over all before any client uses it, or
 * nothing, and then it is set aside: what is newer than it must never be overwritten by it.
 */
export class SessionRetained implements RetainedMemory {
  readonly #store: RetainedStore;
  readonly #sessionId: string;
  readonly #isDevice: boolean;
  readonly #own = new Map<number, OwnJournal>();
  /** Gives back the slabs that the journals of closed disks name. */
  readonly #releases = new Map<number, () => void>();
  /** LUNs that have taken over what was left. */
  readonly #taken = new Set<number>();
  #isSettled = false;
  #isLeft = false;

  private constructor(store: RetainedStore, subject: Omit<JournalSubject, 'lun'>) {
    this.#store = store;
    this.#sessionId = subject.sessionId;
    this.#isDevice = subject.isDevice;
  }

  /** The caller owns the session; a process that had it before may be about to end. */
  static async make(
    store: RetainedStore,
    subject: Omit<JournalSubject, 'lun'>,
  ): Promise<SessionRetained> {
    for (let waitedMs = 0; waitedMs < AWAITED_MS_MAX; waitedMs += AWAITED_RETRY_MS) {
      if (!store.isAwaited(subject.sessionId)) break;
      await sleep(AWAITED_RETRY_MS);
    }
    return new SessionRetained(store, subject);
  }

  begin(lun: number): void {
    // A LUN that comes again: what was retained of it before is of no use any more.
    this.#remove(lun);
    const subject = { sessionId: this.#sessionId, lun, isDevice: this.#isDevice };
    const journal = this.#store.open(subject);
    this.#own.set(lun, journal);
    if (this.#isSettled) journal.begin();
  }

  open(lun: number): Uint8Array | null {
    return this.#own.get(lun)?.memory() ?? null;
  }

  closed(lun: number, release: () => void): void {
    const before = this.#releases.get(lun);
    this.#releases.set(lun, () => {
      before?.();
      release();
    });
    // Nothing is left of what it is in: the session is over.
    if (!this.#own.has(lun)) this.#release(lun);
  }

  recover(lun: number): readonly RecoveredWrites[] | null {
    this.#taken.add(lun);
    const { journals, hasLoss } = this.#store.left.recover(this.#sessionId, lun);
    const found = journals.map((journal) => ({ journal, entries: entriesOf(journal) }));
    if (hasLoss || found.some(({ entries }) => entries === null)) {
      for (const { journal } of found) journal.setAside('not all of them are there');
      return null;
    }
    if (found.length === 0) return null;
    const recovered: RecoveredWrites[] = [];
    for (const { journal, entries } of found) {
      const { slab, drained } = journal;
      if (entries === null || entries.length === 0) drained();
      else recovered.push({ entries, slab, drained });
    }
    return recovered;
  }

  /**
   * All LUNs that take something over have done so, and nothing was acknowledged yet: all else that
   * was left of the session is set aside, and what this process retains counts.
   */
  settle(): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { left } = this.#store;
    for (const lun of left.lunsOf(this.#sessionId)) {
      if (this.#taken.has(lun)) continue;
      for (const journal of left.recover(this.#sessionId, lun).journals) {
        journal.setAside(this.#isDevice ? DEVICE_GONE : 'no process takes the LUN over');
      }
    }
    for (const journal of this.#own.values()) journal.begin();
  }

  /** The session is left to the next process, which needs nothing but what is of these LUNs. */
  leave(unflushed: ReadonlySet<number>): void {
    this.#isLeft = true;
    for (const lun of [...this.#own.keys()]) if (!unflushed.has(lun)) this.#remove(lun);
    this.#removeLeft(unflushed);
  }

  /**
   * The session is over. `isOver`: for those that come later, too, and not only in this process,
   * so that what processes before this one have left is of no use either.
   */
  end({ isOver }: { readonly isOver: boolean }): void {
    if (this.#isLeft) return;
    for (const lun of [...this.#own.keys()]) this.#remove(lun);
    if (isOver) this.#removeLeft(new Set());
  }

  /** The journal of the LUN is of no use any more, nor are the bytes that it names. */
  #remove(lun: number): void {
    this.#own.get(lun)?.remove();
    this.#own.delete(lun);
    this.#release(lun);
  }

  #release(lun: number): void {
    this.#releases.get(lun)?.();
    this.#releases.delete(lun);
  }

  #removeLeft(but: ReadonlySet<number>): void {
    const { left } = this.#store;
    for (const lun of left.lunsOf(this.#sessionId)) {
      if (!but.has(lun)) left.remove(this.#sessionId, lun);
    }
  }
}

/** Entries of a journal; null if it does not have all that it should, or its bytes are gone. */
function entriesOf({ index, hasSlab }: LeftJournal): readonly RetainedEntry[] | null {
  const entries = readRetainedIndex(index);
  return entries?.every(({ pieces }) => arePiecesIn(pieces, hasSlab)) === true ? entries : null;
}

/** Pieces are (slab, offset, length) triples. */
function arePiecesIn(pieces: readonly number[], hasSlab: (slab: number) => boolean): boolean {
  for (let at = 0; at < pieces.length; at += 3) {
    const [slab = -1, offset = 0, length = 0] = pieces.slice(at, at + 3);
    if (!hasSlab(slab) || offset + length > SLAB_BYTES) return false;
  }
  return true;
}
