import type { Clock } from '../../src/base/clock.js';

type Entry = { readonly atMs: number; readonly order: number; action: (() => void) | null };

/** Time that passes only when a test says so: from one due action to the next. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  /** Binary heap, earliest first; of one instant, the one that was asked for first. */
  readonly #heap: Entry[] = [];
  #live = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  /** Actions that have not run and were not cancelled. */
  get pending(): number {
    return this.#live;
  }

  at(atMs: number, action: () => void): () => void {
    this.#order += 1;
    const entry: Entry = { atMs: Math.max(atMs, this.#nowMs), order: this.#order, action };
    this.#push(entry);
    this.#live += 1;
    return () => {
      if (entry.action === null) return;
      entry.action = null;
      this.#live -= 1;
    };
  }

  /** Runs the next action that is due by `untilMs`; false when there is none. */
  step(untilMs: number): boolean {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.atMs > untilMs) return false;
      this.#pop();
      const { action } = first;
      if (action === null) continue;
      first.action = null;
      this.#live -= 1;
      this.#nowMs = first.atMs;
      action();
      return true;
    }
  }

  /** Nothing is due before `untilMs`: time goes there. */
  skipTo(untilMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const up = (at - 1) >> 1;
      const parent = heap[up];
      if (parent === undefined || !before(entry, parent)) break;
      heap[at] = parent;
      at = up;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let down = at * 2 + 1;
      const left = heap[down];
      if (left === undefined) break;
      const right = heap[down + 1];
      let child = left;
      if (right !== undefined && before(right, left)) {
        child = right;
        down += 1;
      }
      if (!before(child, last)) break;
      heap[at] = child;
      at = down;
    }
    heap[at] = last;
  }
}

function before(left: Entry, right: Entry): boolean {
  return left.atMs === right.atMs ? left.order < right.order : left.atMs < right.atMs;
}

/** Lets every promise that can go on do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
