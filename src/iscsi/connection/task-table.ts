import { invariant } from '../../base/errors.js';
import type { ScsiCommand } from '../../scsi/command.js';
import type { LunQueue } from './lun-queues.js';

/** Slots of the table; the tag's low bits name one. */
const SLOT_BITS = 12;
export const TASKS_MAX = 1 << SLOT_BITS;
const SLOT_MASK = TASKS_MAX - 1;
/** Tags with the top bit belong to requests that are not SCSI commands. */
const CONTROL_TAG_BIT = 0x80000000;
const GENERATION_MASK = 0x7ffff;

/** One SCSI command on its way: a preallocated slot, named by its Initiator Task Tag. */
export class Task {
  initiatorTaskTag = 0;
  command: ScsiCommand | null = null;
  /** Where the commands of its LUN are counted. */
  queue: LunQueue | null = null;
  cmdSN = 0;
  /** Bytes of a read received, or of a write handed to the socket; both are in order. */
  bytesDone = 0;
  /** Next DataSN of Data-In or R2TSN of R2T; both share one sequence only within their kind. */
  expectedDataSN = 0;
  /** A data segment failed its digest: the outcome says nothing about the data. */
  damaged = false;
  /** Monotonic instant at which the task has taken too long. */
  deadlineAtMs = 0;
}

/**
 * Tasks of one connection by tag. A tag is slot number plus a generation that changes at each use,
 * so that a late PDU never finds a task that is not its own
 * (RFC 7143 §11.2.1.8 (Initiator Task Tag): unique while in use, never ffffffff).
 */
export class TaskTable {
  readonly #tasks: Task[] = [];
  readonly #free: number[] = [];
  #controlTags = 0;
  count = 0;

  /** A slot for `command`, or null when all are taken. */
  begin(command: ScsiCommand): Task | null {
    let slot = this.#free.pop();
    if (slot === undefined) {
      slot = this.#tasks.length;
      if (slot >= TASKS_MAX) return null;
      this.#tasks.push(new Task());
    }
    const task = this.#tasks[slot];
    invariant(task, `task slot ${slot} is missing`);
    const generation = ((task.initiatorTaskTag >>> SLOT_BITS) + 1) & GENERATION_MASK;
    task.initiatorTaskTag = ((generation << SLOT_BITS) | slot) >>> 0;
    task.command = command;
    task.bytesDone = 0;
    task.expectedDataSN = 0;
    task.damaged = false;
    this.count += 1;
    return task;
  }

  /** The task with exactly this tag, or null. */
  find(initiatorTaskTag: number): Task | null {
    const task = this.#tasks[initiatorTaskTag & SLOT_MASK];
    if (task === undefined || task.command === null) return null;
    return task.initiatorTaskTag === initiatorTaskTag ? task : null;
  }

  /** Ends a task; its tag is not known any more. Returns its command. */
  end(task: Task): ScsiCommand {
    const command = task.command;
    invariant(command, 'a task ended twice');
    task.command = null;
    this.#free.push(task.initiatorTaskTag & SLOT_MASK);
    this.count -= 1;
    return command;
  }

  /** Calls `visit` for each live task, in slot order. */
  forEach(visit: (task: Task) => void): void {
    for (const task of this.#tasks) if (task.command !== null) visit(task);
  }

  /** A tag for a request that is not a SCSI command; unique for 2^30 requests. */
  nextControlTag(): number {
    this.#controlTags = (this.#controlTags + 1) & 0x3fffffff;
    return (CONTROL_TAG_BIT | this.#controlTags) >>> 0;
  }
}
