import type { DaemonSession } from './daemon-session.js';
import type { Neighbours } from './neighbours.js';

/** A session and its place in the table, from the wish to the last trace. */
export type Entry = {
  /** Null until its secrets are read and its record is written. */
  session: DaemonSession | null;
  readonly ready: Promise<DaemonSession>;
  readonly done: Promise<void>;
};

/** Sessions by the key of their login; each is reported to the supervisors of other threads. */
export class SessionTable extends Map<string, Entry> {
  readonly #neighbours: Neighbours | undefined;

  constructor(neighbours: Neighbours | undefined) {
    super();
    this.#neighbours = neighbours;
  }

  /** The key counts as one of the table while `work` goes on, which may begin it again. */
  async hold(key: string, work: () => Promise<void>): Promise<void> {
    this.#neighbours?.begun(key);
    try {
      await work();
    } finally {
      this.#neighbours?.over(key);
    }
  }

  override set(key: string, entry: Entry): this {
    this.#neighbours?.begun(key);
    return super.set(key, entry);
  }

  override delete(key: string): boolean {
    const isDeleted = super.delete(key);
    if (isDeleted) this.#neighbours?.over(key);
    return isDeleted;
  }
}
