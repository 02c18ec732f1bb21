import type { Clock } from '../base/clock.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { LunNews } from './lun-lifecycle-options.js';

/** Replays in a row that the disk may interrupt, with the session there, before they fail. */
const INTERRUPTED_MAX = 8;

/**
 * Writes again what is retained of a LUN, after the gate has found that it is the same disk and
 * before any client reads or writes it.
 */
export class LunReplay {
  readonly #unit: LogicalUnit;
  readonly #clock: Clock;
  readonly #emit: (news: LunNews) => void;
  #interrupted = 0;

  constructor(options: {
    readonly unit: LogicalUnit;
    readonly clock: Clock;
    readonly emit: (news: LunNews) => void;
  }) {
    this.#unit = options.unit;
    this.#clock = options.clock;
    this.#emit = options.emit;
  }

  /**
   * Still due after it: it was interrupted, and the disk has to be probed again. True: it was by
   * the disk, which cannot serve for now.
   */
  async run(onProgress: () => void): Promise<boolean> {
    const unit = this.#unit;
    const { retained } = unit;
    const reason = retained?.replayReason ?? null;
    if (retained === null || reason === null) return false;
    const beganAtMs = this.#clock.nowMs();
    const end = await unit.replay(retained, onProgress);
    switch (end.is) {
      case 'done': {
        this.#interrupted = 0;
        const { requests, bytes } = end;
        const milliseconds = Math.round(this.#clock.nowMs() - beganAtMs);
        this.#emit({ event: 'writesReplayed', requests, bytes, milliseconds, reason });
        return false;
      }
      case 'failed':
        this.#failed(end.why);
        return false;
      case 'away':
        return true;
      case 'lost':
        this.#interrupted += 1;
        if (this.#interrupted < INTERRUPTED_MAX) return false;
        this.#failed(`the disk interrupted the replay ${INTERRUPTED_MAX} times`);
        return false;
    }
  }

  get isDue(): boolean {
    return (this.#unit.retained?.replayReason ?? null) !== null;
  }

  interrupt(): void {
    this.#unit.interruptReplay();
  }

  /** The LUN is removed: others may write to its disk from now on. */
  drop(): void {
    this.interrupt();
    this.#unit.disk.cache.dropRetained();
  }

  /** The LUN serves, be it again. */
  serves(): void {
    this.#unit.disk.cache.retainAgain();
  }

  /** The session was lost: whatever interrupts a replay is not the disk. */
  sessionLost(): void {
    this.#interrupted = 0;
    this.#unit.interruptReplay();
    this.#unit.disk.cache.sessionLost();
  }

  #failed(why: string): void {
    this.#interrupted = 0;
    const { disk, lun } = this.#unit;
    disk.cache.retainedFailed();
    const message =
      `acknowledged writes to LUN ${lun} that were not flushed cannot be written again: ${why}; ` +
      'the next flush of each user fails. Check the file system on it';
    this.#emit({ event: 'warning', message });
  }
}
