/** A sender that has something queued. */
export interface BatchedSender {
  flush(): void;
}

/** Turns are counted in what stays a small integer. */
const TURNS_MASK = 2 ** 30 - 1;

/**
 * Senders with work, so that everything one wake of the event loop produced leaves in one system
 * call per socket: a socket's event handler runs inside `turn`, and the flush comes after it.
 */
export class SendBatch {
  #waiting: BatchedSender[] = [];
  #spare: BatchedSender[] = [];
  #depth = 0;
  #turns = 0;
  #scheduled = false;

  /** Notes that `sender` has bytes to send. */
  add(sender: BatchedSender): void {
    this.#waiting.push(sender);
    if (this.#depth > 0 || this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      // A turn of its own.
      this.begin();
      this.end();
    });
  }

  /** Number of the turn that is under way, or -1. */
  get turn(): number {
    return this.#depth > 0 ? this.#turns : -1;
  }

  begin(): void {
    if (this.#depth === 0) this.#turns = (this.#turns + 1) & TURNS_MASK;
    this.#depth += 1;
  }

  /** The end of a turn: everything noted is sent. */
  end(): void {
    try {
      if (this.#depth === 1) this.#flush();
    } finally {
      this.#depth -= 1;
    }
  }

  #flush(): void {
    // Flushing may find a dead socket, whose end may queue more elsewhere: go on until quiet.
    while (this.#waiting.length > 0) {
      const now = this.#waiting;
      this.#waiting = this.#spare;
      for (const sender of now) sender.flush();
      // `length = 0` would leave compiled code, and the array's memory with it.
      while (now.length > 0) now.pop();
      this.#spare = now;
    }
  }
}
