/**
 * Requests and bytes that all clients of one session may have under way, held ones included.
 * Beyond it clients are not read: back-pressure, never an error (INTERFACE.md, "Semantics").
 */
export class Budget {
  readonly requestsMax: number;
  readonly bytesMax: number;
  requests = 0;
  bytes = 0;
  readonly #waiting: (() => void)[] = [];
  #resuming = false;

  constructor(options: { readonly requestsMax: number; readonly bytesMax: number }) {
    this.requestsMax = options.requestsMax;
    this.bytesMax = options.bytesMax;
  }

  /** True when one more request may begin; one request alone may be larger than the maximum. */
  get hasRoom(): boolean {
    return this.requests < this.requestsMax && (this.bytes < this.bytesMax || this.requests === 0);
  }

  take(bytes: number): void {
    this.requests += 1;
    this.bytes += bytes;
  }

  give(bytes: number): void {
    this.requests -= 1;
    this.bytes -= bytes;
    if (this.#waiting.length > 0 && !this.#resuming) this.#resume();
  }

  /** Calls `resume` once when there is room again; clients are served in turn. */
  whenRoom(resume: () => void): void {
    this.#waiting.push(resume);
  }

  #resume(): void {
    this.#resuming = true;
    // Those who find no room queue up again behind the others, so this round has an end.
    for (let left = this.#waiting.length; left > 0 && this.hasRoom; left -= 1) {
      this.#waiting.shift()?.();
    }
    this.#resuming = false;
  }
}
