import { NEVER_MS } from '../base/clock.js';

/** A burst of BUSY and TASK SET FULL answers is one sign, not many. */
const DECREASE_EVERY_MS = 100;
/** Pause before, and between, steps up. */
const INCREASE_EVERY_MS = 1000;
/** Steps it takes from nothing to the maximum. */
const INCREASE_STEPS = 32;

/**
 * How many commands a session has in flight at a time: three quarters of what there was when the
 * target said that it has too much to do (BUSY, TASK SET FULL: SAM-5 §5.3.1), then up again step by
 * step, about half a minute to the maximum. The driver calls `timeReached` at `nextStepAtMs`.
 */
export class QueueDepthControl {
  depthMax: number;
  #depth: number;
  #decreasedAtMs = Number.NEGATIVE_INFINITY;
  #nextStepAtMs = NEVER_MS;

  constructor(depthMax: number) {
    this.depthMax = depthMax;
    this.#depth = depthMax;
  }

  /** Commands in flight at most; at least 1. */
  get depth(): number {
    return this.#depth;
  }

  /** When `timeReached` wants to be called; Infinity at full depth. */
  get nextStepAtMs(): number {
    return this.#nextStepAtMs;
  }

  /** Another maximum. What the target could not take so far is still gone up to by steps. */
  limit(depthMax: number): void {
    const isReduced = this.#depth < this.depthMax;
    this.depthMax = depthMax;
    this.#depth = isReduced ? Math.min(this.#depth, depthMax) : depthMax;
    if (this.#depth === depthMax) this.#nextStepAtMs = NEVER_MS;
  }

  /** The target has too much to do with `inFlight` commands. */
  congested(nowMs: number, inFlight: number): void {
    this.#nextStepAtMs = nowMs + INCREASE_EVERY_MS;
    if (nowMs - this.#decreasedAtMs < DECREASE_EVERY_MS) return;
    this.#decreasedAtMs = nowMs;
    const reached = Math.min(this.#depth, Math.max(1, inFlight));
    this.#depth = Math.max(1, Math.floor((reached * 3) / 4));
  }

  timeReached(nowMs: number): void {
    if (nowMs < this.#nextStepAtMs) return;
    const step = Math.max(1, Math.floor(this.depthMax / INCREASE_STEPS));
    this.#depth = Math.min(this.depthMax, this.#depth + step);
    this.#nextStepAtMs = this.#depth < this.depthMax ? nowMs + INCREASE_EVERY_MS : NEVER_MS;
  }
}
