import type { Clock } from '../../base/clock.js';

/** A path that fails so often within `WITHIN_MS` is not trusted until it has held that long. */
const FAILURES_MAX = 3;
const WITHIN_MS = 60_000;

/** Counts the recent failures of a path: they decide if it is used at once when it is back. */
export class PathFailures {
  readonly #clock: Clock;
  readonly #suspect: (isSuspect: boolean) => void;
  readonly #atMs: number[] = [];
  /** Times that it was lost, or could not be used any more. */
  total = 0;
  #cancel: () => void = () => undefined;

  constructor(clock: Clock, suspect: (isSuspect: boolean) => void) {
    this.#clock = clock;
    this.#suspect = suspect;
  }

  failed(): void {
    this.#cancel();
    this.total += 1;
    this.#atMs.push(this.#clock.nowMs());
    if (this.#atMs.length > FAILURES_MAX) this.#atMs.shift();
  }

  isBack(): void {
    const nowMs = this.#clock.nowMs();
    const first = this.#atMs[this.#atMs.length - FAILURES_MAX];
    const isSuspect = first !== undefined && nowMs - first < WITHIN_MS;
    this.#suspect(isSuspect);
    if (isSuspect) this.#cancel = this.#clock.at(nowMs + WITHIN_MS, () => this.#suspect(false));
  }

  close(): void {
    this.#cancel();
  }
}
