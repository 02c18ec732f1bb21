import type { ScsiCommand } from '../../scsi/command.js';

/** First in, first out, without moving the rest; bounded by what its users may have in flight. */
export class CommandQueue {
  #items: (ScsiCommand | null)[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(command: ScsiCommand): void {
    this.#items.push(command);
  }

  /** Calls `visit` for each command, in their order. */
  forEach(visit: (command: ScsiCommand) => void): void {
    for (const command of this.#items) if (command !== null) visit(command);
  }

  shift(): ScsiCommand | null {
    const command = this.#items[this.#head];
    if (command === undefined || command === null) return null;
    this.#items[this.#head] = null;
    this.#head += 1;
    if (this.#head === this.#items.length) {
      while (this.#items.length > 0) this.#items.pop();
      this.#head = 0;
    } else if (this.#head > 1024) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return command;
  }
}
