import type { LunField, ScsiCommand } from '../../scsi/command.js';
import { lunEquals } from '../../scsi/lun.js';
import { CommandQueue } from './command-queue.js';

/**
 * LUNs that are remembered without need; one that has commands or a limit always is. Users name the
 * LUNs of a session, so there are as many as disks and a few that were only asked about.
 */
const LUNS_REMEMBERED_MAX = 256;

/** Scans (one a second) after which a LUN without commands claims one place and no share. */
const IDLE_SCANS_MAX = 60;

/** The commands of one LUN: those that wait, in their order, and the number in flight. */
export class LunQueue {
  readonly lun: LunField;
  readonly waiting = new CommandQueue();
  /** Control commands that wait. */
  readonly control = new CommandQueue();
  inFlight = 0;
  controlInFlight = 0;
  /** Commands in flight at most, control commands included. */
  depthMax = Number.POSITIVE_INFINITY;
  /** It has had block I/O: control commands alone claim no share. */
  isUsed = false;
  /** Scans since the LUN had a command. */
  idleScans = 0;
  /** Commands that ended in CHECK CONDITION, and whose owners do not know it yet. */
  #untold = 0;

  constructor(lun: LunField) {
    this.lun = lun;
  }

  /** A command of this LUN that was in flight has ended. */
  ended(command: ScsiCommand): void {
    if (command.isControl) this.controlInFlight -= 1;
    else this.inFlight -= 1;
  }

  /** A command has ended in CHECK CONDITION. */
  noteUntold(): void {
    this.#untold += 1;
  }

  /** Its owner has the outcome. */
  told(): void {
    this.#untold = Math.max(0, this.#untold - 1);
  }

  /** Block I/O has to wait: what its users are about to hear may mean that it must not be sent. */
  get hasUntold(): boolean {
    return this.#untold > 0;
  }

  get isEmpty(): boolean {
    const inFlight = this.inFlight + this.controlInFlight + this.#untold;
    return inFlight + this.waiting.length + this.control.length === 0;
  }

  get isFull(): boolean {
    return this.inFlight + this.controlInFlight >= this.depthMax;
  }
}

/**
 * The commands of a session that wait, one queue a LUN, and the order in which the LUNs are served:
 * control commands first, then block I/O round robin. A LUN that hangs must not stop the others, so
 * of the `n` LUNs in use each has a share of the capacity of its own: half of it divided by `n`, at
 * least one command. The other half is taken by the first that needs it. A LUN that has been idle
 * for a minute claims one place, which is what its next command needs when another LUN has the
 * rest; and no more than half is ever kept for LUNs that do not use it.
 */
export class LunQueues {
  /** Block I/O in flight at most; the shares of LUNs that were idle may come on top. */
  depthMax: number;
  /** Queue of the command that `next` has given out last. */
  taken: LunQueue | null = null;
  waitingCount = 0;
  /** Every LUN that is known. */
  readonly #all: LunQueue[] = [];
  /** Queues with block I/O that waits, in the order of their turns. */
  readonly #ready: LunQueue[] = [];
  #turn = 0;
  #controlTurn = 0;
  #controlCount = 0;
  #last: LunQueue | null = null;
  /** Of the round that `begin` has prepared. */
  #share = 1;
  /** Places that no LUN has claimed. */
  #places = 0;
  #held: LunQueue | null = null;

  constructor(depthMax: number) {
    this.depthMax = depthMax;
  }

  /** The queue of a LUN. Most commands are for the LUN of the one before. */
  of(lun: LunField): LunQueue {
    const last = this.#last;
    if (last !== null && lunEquals(last.lun, lun)) return last;
    for (const queue of this.#all) {
      if (!lunEquals(queue.lun, lun)) continue;
      this.#last = queue;
      return queue;
    }
    return this.#added(lun);
  }

  push(command: ScsiCommand): void {
    const queue = this.of(command.lun);
    queue.idleScans = 0;
    this.waitingCount += 1;
    if (command.isControl) {
      queue.control.push(command);
      this.#controlCount += 1;
      return;
    }
    queue.isUsed = true;
    if (queue.waiting.length === 0) this.#ready.push(queue);
    queue.waiting.push(command);
  }

  /**
   * Prepares a round of `next`. The target takes `roomInWindow` commands more, and the LUN of
   * `held` gets none in this round.
   */
  begin(roomInWindow: number, held: LunQueue | null): void {
    this.#held = held;
    const only = this.#all.length === 1 ? this.#all[0] : undefined;
    if (only !== undefined) {
      // One LUN has no use for shares; most sessions have one.
      this.#share = 0;
      this.#places = Math.max(
        Math.min(this.depthMax - only.inFlight, roomInWindow),
        1 - only.inFlight,
      );
      return;
    }
    let inFlight = 0;
    let users = 0;
    for (const queue of this.#all) {
      inFlight += queue.inFlight;
      if (queue.isUsed && queue.idleScans < IDLE_SCANS_MAX) users += 1;
    }
    const capacity = Math.min(this.depthMax, inFlight + roomInWindow);
    this.#share = Math.max(1, Math.floor(capacity / (2 * users)));
    let claimed = 0;
    for (const queue of this.#all) claimed += Math.max(0, this.#claimOf(queue) - queue.inFlight);
    this.#places = capacity - inFlight - Math.min(claimed, capacity >> 1);
  }

  /** The next command that may be sent, or null; the caller sends it to `taken`. */
  next(): ScsiCommand | null {
    if (this.#controlCount > 0) {
      const command = this.#nextControl();
      if (command !== null) return command;
    }
    const ready = this.#ready;
    for (let left = ready.length; left > 0; left -= 1) {
      if (this.#turn >= ready.length) this.#turn = 0;
      const queue = ready[this.#turn];
      if (queue !== undefined && this.#mayGo(queue)) return this.#take(queue);
      this.#turn += 1;
    }
    return null;
  }

  /** Any command that waits, those of one LUN in their order: none of them will be sent. */
  drain(): ScsiCommand | null {
    for (const queue of this.#all) {
      const command = queue.control.shift() ?? queue.waiting.shift();
      if (command !== null) {
        this.waitingCount -= 1;
        return command;
      }
    }
    this.#controlCount = 0;
    this.#ready.length = 0;
    return null;
  }

  /** The oldest command that waits for a LUN, which will not be sent; no control command. */
  recall(lun: LunField): ScsiCommand | null {
    const queue = this.of(lun);
    const command = queue.waiting.shift();
    if (command !== null) this.waitingCount -= 1;
    if (queue.waiting.length === 0) {
      const at = this.#ready.indexOf(queue);
      if (at >= 0) this.#ready.splice(at, 1);
    }
    return command;
  }

  /** To be called once a second. */
  scanned(): void {
    for (const queue of this.#all) if (queue.isEmpty) queue.idleScans += 1;
  }

  #claimOf(queue: LunQueue): number {
    if (!queue.isUsed) return 0;
    const claim = queue.idleScans < IDLE_SCANS_MAX ? this.#share : 1;
    return Math.min(claim, queue.depthMax);
  }

  #mayGo(queue: LunQueue): boolean {
    if (queue.isFull || queue.hasUntold || queue === this.#held) return false;
    return queue.inFlight < this.#share || this.#places > 0;
  }

  #take(queue: LunQueue): ScsiCommand | null {
    const command = queue.waiting.shift();
    if (queue.inFlight >= this.#share) this.#places -= 1;
    queue.inFlight += 1;
    this.waitingCount -= 1;
    this.taken = queue;
    if (queue.waiting.length > 0) this.#turn += 1;
    else if (this.#ready.length === 1) this.#ready.pop();
    else this.#ready.splice(this.#turn, 1);
    return command;
  }

  #nextControl(): ScsiCommand | null {
    for (let left = this.#all.length; left > 0; left -= 1) {
      this.#controlTurn = (this.#controlTurn + 1) % this.#all.length;
      const queue = this.#all[this.#controlTurn];
      if (queue === undefined || queue.isFull || queue === this.#held) continue;
      const command = queue.control.shift();
      if (command === null) continue;
      this.#controlCount -= 1;
      queue.controlInFlight += 1;
      this.waitingCount -= 1;
      this.taken = queue;
      return command;
    }
    return null;
  }

  #added(lun: LunField): LunQueue {
    if (this.#all.length >= LUNS_REMEMBERED_MAX) {
      const at = this.#all.findIndex(
        (one) => one.isEmpty && one.depthMax === Number.POSITIVE_INFINITY,
      );
      if (at >= 0) this.#all.splice(at, 1);
    }
    const queue = new LunQueue({ upper: lun.upper, lower: lun.lower });
    this.#all.push(queue);
    this.#last = queue;
    return queue;
  }
}
