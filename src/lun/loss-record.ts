import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import * as z from 'zod';
import { errnoOf } from '../base/errors.js';

const lunsSchema = z.array(z.number().int().nonnegative());
const fileSchema = z.object({
  sessionId: z.string(),
  luns: lunsSchema,
  written: lunsSchema.default([]),
});

/** What a process before this one left; `all` where its file cannot be read. */
type Found = {
  readonly lost: readonly number[] | 'all';
  readonly written: readonly number[] | 'all';
};

/**
 * LUNs that have lost acknowledged writes without any flush having failed for it yet, on disk: the
 * disk says so once, to a process that may die before it could pass it on. Beside them, LUNs with
 * acknowledged writes that may be in a volatile cache only. Written at once, in the turn in which
 * it becomes known, and without waiting for the disk: it has to outlive this process, not the
 * machine.
 */
export class LossRecord {
  readonly #path: string;
  readonly #sessionId: string;
  readonly #onFailure: (message: string) => void;
  readonly #before: Found;
  readonly #lost: Set<number>;
  readonly #written: Set<number>;
  #isEnding = false;

  /** `onFailure` is called if the system does not let us read or write: the rule then has a gap. */
  constructor(options: {
    readonly path: string;
    readonly sessionId: string;
    /** Nothing says any more which session the file has to be of. */
    readonly isOfAnySession?: boolean;
    readonly onFailure: (message: string) => void;
  }) {
    this.#path = options.path;
    this.#sessionId = options.sessionId;
    this.#onFailure = options.onFailure;
    this.#before = this.#read(options.isOfAnySession === true);
    const { lost, written } = this.#before;
    this.#lost = new Set(lost === 'all' ? [] : lost);
    this.#written = new Set(written === 'all' ? [] : written);
    if (options.isOfAnySession === true && !this.isEmpty) this.#write();
  }

  /** A process before this one knew of a loss of the LUN, and had not told everybody. */
  wasLostBefore(lun: number): boolean {
    return this.#before.lost === 'all' || this.#before.lost.includes(lun);
  }

  /** A process before this one left acknowledged writes to the LUN that no flush of its covered. */
  wasWrittenBefore(lun: number): boolean {
    return this.#before.written === 'all' || this.#before.written.includes(lun);
  }

  /** There is nothing that the next process would have to know. */
  get isEmpty(): boolean {
    return this.#lost.size === 0 && this.#written.size === 0;
  }

  isWritten(lun: number): boolean {
    return this.#written.has(lun);
  }

  /** The LUN has an unreported loss, or has none any more. */
  changed(lun: number, isUntold: boolean): void {
    // Clients that are disconnected did not get the report: they may come back to the next process.
    if (isUntold === this.#lost.has(lun) || (!isUntold && this.#isEnding)) return;
    if (isUntold) this.#lost.add(lun);
    else this.#lost.delete(lun);
    this.#write();
  }

  /** A write to the LUN is about to be acknowledged from a volatile cache. */
  written(lun: number): void {
    if (this.#written.has(lun)) return;
    this.#written.add(lun);
    this.#write();
  }

  /** All acknowledged writes to the LUN are on the disk, or known to be lost; no more will come. */
  flushed(lun: number): void {
    if (this.#written.delete(lun)) this.#write();
  }

  /** The clients are about to be sent away: what is untold now stays so. */
  ends(): void {
    this.#isEnding = true;
  }

  /** The session is over. */
  remove(): void {
    if (this.isEmpty && this.#before.lost !== 'all') return;
    this.#lost.clear();
    this.#written.clear();
    this.#write();
  }

  /** A file that is not there, or of another session, says nothing; a broken one, the worst. */
  #read(isOfAnySession: boolean): Found {
    try {
      const found = fileSchema.parse(JSON.parse(readFileSync(this.#path, 'utf8')));
      const isOurs = isOfAnySession || found.sessionId === this.#sessionId;
      return isOurs ? { lost: found.luns, written: found.written } : { lost: [], written: [] };
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error))) return { lost: [], written: [] };
      const { message } = error as Error;
      this.#onFailure(
        `what the disks have lost cannot be read from ${this.#path} (${message}): every LUN is ` +
          'taken to have lost writes, and its next flush fails',
      );
      return { lost: 'all', written: 'all' };
    }
  }

  #write(): void {
    try {
      if (this.isEmpty) {
        rmSync(this.#path, { force: true });
        return;
      }
      mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
      const draft = `${this.#path}.${process.pid}.tmp`;
      writeFileSync(draft, this.#text(), { mode: 0o600 });
      renameSync(draft, this.#path);
    } catch (error) {
      const { message } = error as Error;
      const luns = [...new Set([...this.#lost, ...this.#written])].join(', ');
      const what = this.#lost.size > 0 ? 'lost writes' : 'unflushed writes';
      this.#onFailure(
        `${what} of LUN ${luns} cannot be written down (${message}): if this ` +
          'process is killed before the next flush, the one that follows does not know of them',
      );
    }
  }

  #text(): string {
    const written = this.#written.size === 0 ? {} : { written: [...this.#written] };
    return JSON.stringify({ sessionId: this.#sessionId, luns: [...this.#lost], ...written });
  }
}
