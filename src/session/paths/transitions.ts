import type { Clock } from '../../base/clock.js';
import type { UnitPath } from './unit-path.js';

/** How long a transition may take if the target does not tell; Linux waits as long. */
export const TRANSITION_SECONDS = 60;

/**
 * Paths whose port changes its asymmetric access state. Requests wait for them, each for as long as
 * the target says that a transition takes (SPC-4, IMPLICIT TRANSITION TIME).
 */
export class Transitions {
  readonly #clock: Clock;
  readonly #ended: (each: UnitPath, reason: string) => void;
  /** What ends the wait for a path; null: it has taken too long. */
  readonly #waits = new Map<UnitPath, (() => void) | null>();

  /** `ended` gets a path that has taken too long. */
  constructor(clock: Clock, ended: (each: UnitPath, reason: string) => void) {
    this.#clock = clock;
    this.#ended = ended;
  }

  get isUnderWay(): boolean {
    for (const wait of this.#waits.values()) if (wait !== null) return true;
    return false;
  }

  begun(each: UnitPath, seconds: number): void {
    if (this.#waits.has(each)) return;
    const cancel = this.#clock.at(this.#clock.nowMs() + seconds * 1000, () => {
      this.#waits.set(each, null);
      this.#ended(each, `its transition has taken longer than ${seconds} s`);
    });
    this.#waits.set(each, cancel);
  }

  /** The path can be used, or cannot for another reason. */
  over(each: UnitPath): void {
    this.#waits.get(each)?.();
    this.#waits.delete(each);
  }

  close(): void {
    for (const wait of this.#waits.values()) wait?.();
    this.#waits.clear();
  }
}
