import type { Clock } from '../base/clock.js';
import type { SendBatch } from './send-batch.js';

/**
 * A clock that is read once in a turn of the flush list: everything one wake brought happened at
 * the same instant. Where the system has no clock without a call of the kernel (some virtual
 * machines), most of the calls of a deep queue were reads of the clock. A turn may be held up in
 * its middle, so the beginning of an outage is not for this clock.
 */
export class TurnClock {
  readonly #clock: Clock;
  readonly #flushes: SendBatch;
  #turn = -1;
  #nowMs = 0;

  constructor(clock: Clock, flushes: SendBatch) {
    this.#clock = clock;
    this.#flushes = flushes;
  }

  nowMs(): number {
    const { turn } = this.#flushes;
    if (turn < 0) return this.#clock.nowMs();
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#nowMs = this.#clock.receiptMs?.() ?? this.#clock.nowMs();
    }
    return this.#nowMs;
  }
}
