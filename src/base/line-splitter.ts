/** Bytes as they come, lines as they are whole; what is kept of an unfinished one has a bound. */
export class LineSplitter {
  readonly #bytesMax: number;
  #parts: Buffer[] = [];
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /**
   * The lines that `chunk` completes, without their ends; `null` after them when a line is longer
   * than the bound: nothing may be pushed after that.
   */
  push(chunk: Buffer): (string | null)[] {
    const lines: (string | null)[] = [];
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      this.#keep(chunk.subarray(start, end));
      if (this.#bytes > this.#bytesMax) return [...lines, null];
      lines.push(Buffer.concat(this.#parts, this.#bytes).toString('utf8'));
      this.#parts = [];
      this.#bytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    return this.#bytes > this.#bytesMax ? [...lines, null] : lines;
  }

  #keep(part: Buffer): void {
    // Small pieces are joined, or a line sent byte by byte would cost an object each.
    const last = this.#parts.at(-1);
    if (last !== undefined && last.length + part.length <= 4096) {
      this.#parts[this.#parts.length - 1] = Buffer.concat([last, part]);
    } else {
      this.#parts.push(part);
    }
    this.#bytes += part.length;
  }
}
