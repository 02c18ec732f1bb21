/** Numbers that look random and are the same for the same seed (xorshift32 on a mixed seed). */
export class Seeded {
  #state: number;

  constructor(seed: number) {
    // Neighbouring seeds begin far apart (the finalizer of MurmurHash3).
    let mixed = (seed + 0x9e3779b9) >>> 0;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    this.#state = (mixed ^ (mixed >>> 16)) >>> 0 || 1;
  }

  #next(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state >>> 0;
    return this.#state;
  }

  /** 0 ≤ result < 1. */
  unit(): number {
    return this.#next() / 0x1_0000_0000;
  }

  /** A whole number from `min` to `max`, both included. */
  whole(min: number, max: number): number {
    return min + Math.floor(this.unit() * (max - min + 1));
  }

  between(min: number, max: number): number {
    return min + this.unit() * (max - min);
  }

  /** As `between`, but as often from 1 to 2 as from 100 to 200. */
  spread(min: number, max: number): number {
    return min * (max / min) ** this.unit();
  }

  chance(part: number): boolean {
    return this.unit() < part;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.whole(0, list.length - 1)]!;
  }
}
