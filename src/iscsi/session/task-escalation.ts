import { NEVER_MS } from '../../base/clock.js';
import type { LunField } from '../../scsi/command.js';
import type { Task } from '../connection/task-table.js';
import { TaskManagementFunction } from '../pdu/pdu.js';

export type EscalationStep = 'abortTask' | 'logicalUnitReset' | 'targetWarmReset' | 'reconnect';

/** What a step asks to be sent; `reconnect` is the last and sends nothing. */
export type EscalationOrder = {
  readonly step: EscalationStep;
  readonly function: number;
  readonly lun: LunField;
  readonly task: Task | null;
};

type EscalationTimers = {
  readonly abortTimeoutMs: number;
  readonly logicalUnitResetTimeoutMs: number;
};

/** Response codes of RFC 7143 §11.6.1 (Response). */
const FUNCTION_COMPLETE = 0;
const TASK_DOES_NOT_EXIST = 1;
/**
 * Its tasks do not, either; a reset of the whole target would only harm other LUNs. It says nothing
 * of tasks that other sessions have: the LUN may be there for them.
 */
const LUN_DOES_NOT_EXIST = 2;
export const FUNCTION_REJECTED = 255;

/**
 * What is done about a task that takes too long: ABORT TASK, then LOGICAL UNIT RESET, then TARGET
 * WARM RESET, then a new connection (RFC 7143 §11.5.1 (Function)). One escalation at a time.
 */
export class TaskEscalation {
  readonly #timers: EscalationTimers;
  #step: EscalationStep | null = null;
  #tag = -1;
  #task: Task | null = null;
  #taskTag = 0;
  #lun: LunField = { upper: 0, lower: 0 };
  #cmdSN = 0;
  /** A reset that was asked for, and not because a task is late: it has no next step. */
  #isWanted = false;
  deadlineAtMs = NEVER_MS;

  constructor(timers: EscalationTimers) {
    this.#timers = timers;
  }

  get isRunning(): boolean {
    return this.#step !== null;
  }

  get step(): EscalationStep | null {
    return this.#step;
  }

  /** A task is late: the first order. */
  begin(task: Task, lun: LunField, nowMs: number): EscalationOrder {
    this.#task = task;
    this.#taskTag = task.initiatorTaskTag;
    this.#lun = lun;
    return this.#enter('abortTask', nowMs);
  }

  /**
   * A caller wants all tasks of the LUN to end, also those of other sessions: nothing follows if
   * the target does not do it.
   */
  beginReset(lun: LunField, nowMs: number): EscalationOrder {
    this.#task = null;
    this.#lun = lun;
    this.#isWanted = true;
    return this.#enter('logicalUnitReset', nowMs);
  }

  /** The order has been sent, with this tag and CmdSN. */
  sent(request: { readonly initiatorTaskTag: number; readonly cmdSN: number }): void {
    this.#tag = request.initiatorTaskTag;
    this.#cmdSN = request.cmdSN;
  }

  /**
   * A task management response. `ended` says which tasks are over and have to be given back as
   * aborted; `next` is an order to follow, if any. A response to another request is ignored.
   */
  answered(
    initiatorTaskTag: number,
    response: number,
    nowMs: number,
  ): {
    readonly ended: 'task' | 'logicalUnit' | 'all' | 'none';
    readonly next: EscalationOrder | null;
  } {
    if (this.#step === null || initiatorTaskTag !== this.#tag) return { ended: 'none', next: null };
    const step = this.#step;
    const isDone =
      response === FUNCTION_COMPLETE ||
      (step === 'abortTask' && response === TASK_DOES_NOT_EXIST) ||
      (step === 'logicalUnitReset' && response === LUN_DOES_NOT_EXIST && !this.#isWanted);
    if (!isDone) return { ended: 'none', next: this.#next(step, nowMs) };
    this.stop();
    if (step === 'abortTask') return { ended: 'task', next: null };
    return { ended: step === 'logicalUnitReset' ? 'logicalUnit' : 'all', next: null };
  }

  /** No answer in time: the next order, or null if the task has ended and needs none. */
  timedOut(nowMs: number): EscalationOrder | null {
    return this.#next(this.#step ?? 'abortTask', nowMs);
  }

  /** The late task, while it still is the same. */
  get task(): Task | null {
    const task = this.#task;
    if (task === null || task.command === null) return null;
    return task.initiatorTaskTag === this.#taskTag ? task : null;
  }

  get lun(): LunField {
    return this.#lun;
  }

  /**
   * The CmdSN of the request. A reset acts on the tasks with a lower one and on no other
   * (RFC 7143 §11.5.1 (Function)).
   */
  get cmdSN(): number {
    return this.#cmdSN;
  }

  stop(): void {
    this.#step = null;
    this.#isWanted = false;
    this.#tag = -1;
    this.deadlineAtMs = NEVER_MS;
  }

  /** A task that was answered while its abort was not is no reason to reset anything. */
  #next(step: EscalationStep, nowMs: number): EscalationOrder | null {
    if (this.#isWanted || (step === 'abortTask' && this.task === null)) {
      this.stop();
      return null;
    }
    return this.#enter(following(step), nowMs);
  }

  #enter(step: EscalationStep, nowMs: number): EscalationOrder {
    this.#step = step;
    this.#tag = -1;
    const { abortTimeoutMs, logicalUnitResetTimeoutMs } = this.#timers;
    const allowedMs = step === 'abortTask' ? abortTimeoutMs : logicalUnitResetTimeoutMs;
    this.deadlineAtMs = step === 'reconnect' ? NEVER_MS : nowMs + allowedMs;
    return { step, function: FUNCTIONS[step], lun: this.#lun, task: this.task };
  }
}

const FUNCTIONS: Readonly<Record<EscalationStep, number>> = {
  abortTask: TaskManagementFunction.abortTask,
  logicalUnitReset: TaskManagementFunction.logicalUnitReset,
  targetWarmReset: TaskManagementFunction.targetWarmReset,
  reconnect: 0,
};

function following(step: EscalationStep): EscalationStep {
  switch (step) {
    case 'abortTask':
      return 'logicalUnitReset';
    case 'logicalUnitReset':
      return 'targetWarmReset';
    default:
      return 'reconnect';
  }
}
