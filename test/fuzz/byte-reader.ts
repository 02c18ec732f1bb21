/** Takes numbers and pieces out of the bytes of a fuzzer; at the end all is zero and empty. */
export class ByteReader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#data.length;
  }

  byte(): number {
    const byte = this.#data[this.#at] ?? 0;
    this.#at += 1;
    return byte;
  }

  bool(): boolean {
    return (this.byte() & 1) !== 0;
  }

  word(): number {
    return ((this.byte() << 24) | (this.byte() << 16) | (this.byte() << 8) | this.byte()) >>> 0;
  }

  bytes(length: number): Buffer {
    const bytes = this.#data.subarray(this.#at, this.#at + length);
    this.#at += length;
    return bytes;
  }

  rest(): Buffer {
    return this.bytes(this.#data.length);
  }
}
