import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';

const lossSchema = z.object({
  sessionId: z.string(),
  luns: z.array(z.number().int().nonnegative()),
});

/**
 * LUNs that have lost acknowledged writes without any flush having failed for it yet, on disk: the
 * disk says so once, to a process that may die before it could pass it on. Written at once, in the
 * turn in which the loss becomes known, and without waiting for the disk: it has to outlive this
 * process, not the machine.
 */
export class LossRecord {
  readonly #path: string;
  readonly #sessionId: string;
  readonly #onFailure: (message: string) => void;
  readonly #luns: Set<number>;
  /** As a process before this one left it. */
  readonly lunsBefore: readonly number[];

  /** `onFailure` is told when the system does not let us write: the rule then ends with us. */
  constructor(options: {
    readonly path: string;
    readonly sessionId: string;
    readonly onFailure: (message: string) => void;
  }) {
    this.#path = options.path;
    this.#sessionId = options.sessionId;
    this.#onFailure = options.onFailure;
    this.lunsBefore = lunsIn(options.path, options.sessionId);
    this.#luns = new Set(this.lunsBefore);
  }

  /** The LUN has a loss nobody was told of, or has none any more. */
  changed(lun: number, isUntold: boolean): void {
    if (isUntold === this.#luns.has(lun)) return;
    if (isUntold) this.#luns.add(lun);
    else this.#luns.delete(lun);
    this.#write();
  }

  /** The session is over. */
  remove(): void {
    if (this.#luns.size === 0) return;
    this.#luns.clear();
    this.#write();
  }

  #write(): void {
    const luns = [...this.#luns];
    try {
      if (luns.length === 0) {
        rmSync(this.#path, { force: true });
        return;
      }
      mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
      const draft = `${this.#path}.${process.pid}.tmp`;
      writeFileSync(draft, JSON.stringify({ sessionId: this.#sessionId, luns }), { mode: 0o600 });
      renameSync(draft, this.#path);
    } catch (error) {
      const { message } = error as Error;
      this.#onFailure(
        `lost writes of LUN ${luns.join(', ')} cannot be written down (${message}): if this ` +
          'process is killed before the next flush, the one that follows does not know of them',
      );
    }
  }
}

/** A file that is not there, broken, or of another session says nothing. */
function lunsIn(path: string, sessionId: string): readonly number[] {
  try {
    const found = lossSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
    return found.sessionId === sessionId ? found.luns : [];
  } catch {
    return [];
  }
}
