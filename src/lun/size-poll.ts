import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';

/**
 * Pause between questions for the size: LIO and others say nothing when a disk grows. One small
 * command for each disk; those who cannot wait that long have a target that says so.
 */
const SIZE_POLL_MS = 30_000;
/** A disk that does not answer is asked less and less: what ends the wait harms its session. */
const SIZE_POLL_MS_MAX = 32 * SIZE_POLL_MS;

type SizePollOptions = {
  readonly clock: Clock;
  /** Blocks the unit has, null where it does not tell; null in place of a promise: not now. */
  readonly ask: () => Promise<number | null> | null;
  /** Blocks that are known. */
  readonly blockCount: () => number;
  readonly changed: () => void;
};

/** Asks a unit for its size now and then. */
export class SizePoll {
  readonly #options: SizePollOptions;
  #cancel: () => void = () => undefined;
  #pauseMs = SIZE_POLL_MS;
  #isOver = false;

  constructor(options: SizePollOptions) {
    this.#options = options;
    this.#later();
  }

  stop(): void {
    this.#isOver = true;
    this.#cancel();
  }

  #later(): void {
    const { clock } = this.#options;
    this.#cancel = clock.at(clock.nowMs() + this.#pauseMs, () => {
      this.#ask()
        // A question without an answer is asked again; the session reports what the link lost.
        .catch((error: unknown) => {
          productError(error);
          this.#pauseMs = Math.min(2 * this.#pauseMs, SIZE_POLL_MS_MAX);
        })
        .then(() => {
          if (!this.#isOver) this.#later();
        });
    });
  }

  async #ask(): Promise<void> {
    const asked = this.#options.ask();
    if (asked === null) return;
    const count = await asked;
    this.#pauseMs = SIZE_POLL_MS;
    if (count !== null && count !== this.#options.blockCount()) this.#options.changed();
  }
}
