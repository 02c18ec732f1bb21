/** A range of bytes that one of several writes has written last. */
export type NewestRange<Source> = {
  readonly startBytes: number;
  readonly endBytes: number;
  readonly source: Source;
};

/**
 * Which of several writes is the newest where: ranges in order of their place, none of which
 * overlaps another. `writes` are oldest first; each covers what the ones before it wrote there.
 */
export function newestRanges<Source extends { offsetBytes: number; lengthBytes: number }>(
  writes: readonly Source[],
): NewestRange<Source>[] {
  const covered = new CoveredBytes();
  const found: NewestRange<Source>[] = [];
  for (const source of writes.toReversed()) {
    const startBytes = source.offsetBytes;
    const endBytes = startBytes + source.lengthBytes;
    for (const gap of covered.cover(startBytes, endBytes)) found.push({ ...gap, source });
  }
  return found.sort((left, right) => left.startBytes - right.startBytes);
}

type Bytes = { readonly startBytes: number; readonly endBytes: number };

/** A set of bytes as ranges in order, of which no two touch. */
class CoveredBytes {
  readonly #ranges: Bytes[] = [];

  /** Adds a range, and returns the parts of it that were not there. */
  cover(startBytes: number, endBytes: number): Bytes[] {
    const first = this.#firstThatEndsFrom(startBytes);
    const gaps: Bytes[] = [];
    let at = startBytes;
    let last = first;
    for (; last < this.#ranges.length; last += 1) {
      const range = this.#ranges[last];
      if (range === undefined || range.startBytes > endBytes) break;
      if (range.startBytes > at) gaps.push({ startBytes: at, endBytes: range.startBytes });
      at = Math.max(at, range.endBytes);
    }
    if (at < endBytes) gaps.push({ startBytes: at, endBytes });
    const joined = {
      startBytes: Math.min(startBytes, this.#ranges[first]?.startBytes ?? startBytes),
      endBytes: Math.max(endBytes, at),
    };
    this.#ranges.splice(first, last - first, joined);
    return gaps;
  }

  /** Place of the first range that ends at `bytes` or behind it. */
  #firstThatEndsFrom(bytes: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.endBytes ?? 0) < bytes) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
