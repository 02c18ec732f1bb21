const NO_BYTES = Buffer.alloc(0);

/**
 * Data segment of a PDU that is not Data-In, gathered into one piece. Its length is bounded by
 * what the reader lets through (our MaxRecvDataSegmentLength).
 */
export class SegmentCollector {
  #buffer = Buffer.allocUnsafe(1024);
  #length = 0;
  /** Copy of the header, when asked for. */
  readonly header = Buffer.alloc(48);

  begin(dataLength: number, header: Buffer | null): void {
    if (header !== null) header.copy(this.header);
    if (dataLength > this.#buffer.length) this.#buffer = Buffer.allocUnsafe(dataLength);
    this.#length = 0;
  }

  append(source: Buffer, at: number, length: number): void {
    source.copy(this.#buffer, this.#length, at, at + length);
    this.#length += length;
  }

  /** The bytes so far; shares memory that the next PDU overwrites. */
  get bytes(): Buffer {
    return this.#length === 0 ? NO_BYTES : this.#buffer.subarray(0, this.#length);
  }
}
