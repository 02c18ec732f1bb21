import { NEVER_MS } from '../base/clock.js';
import { invariant, LinkError } from '../base/errors.js';
import type { ScsiCommand } from '../scsi/command.js';
import { CommandQueue } from './command-queue.js';
import type { Connection } from './connection.js';
import type { TextRequest } from './login-pdu.js';
import type { SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';
import { type EscalationOrder, TaskEscalation } from './task-escalation.js';
import { TASKS_MAX, type Task } from './task-table.js';

/** How often the tasks in flight are looked at for one that takes too long. */
const TASK_SCAN_MS = 1000;

/**
 * The commands of a session: those that wait for the window or the depth, those in flight on its
 * connection, and what is done about one that takes too long.
 */
export class CommandFlow {
  /** Commands in flight at most. */
  depthMax: number;
  readonly #timers: SessionTimers;
  readonly #completed: ScsiCommand[];
  readonly #effects: SessionEffect[];
  readonly #waiting = new CommandQueue();
  readonly #escalation: TaskEscalation;
  #connection: Connection | null = null;
  #state: 'closed' | 'open' | 'paused' = 'closed';
  #text: TextRequest | null = null;
  #scanAtMs = NEVER_MS;
  /** Instant since which commands wait and the target has let none out. */
  #stalledSinceMs = NEVER_MS;

  constructor(options: {
    readonly depthMax: number;
    readonly timers: SessionTimers;
    readonly completed: ScsiCommand[];
    readonly effects: SessionEffect[];
  }) {
    this.depthMax = Math.min(options.depthMax, TASKS_MAX);
    this.#timers = options.timers;
    this.#completed = options.completed;
    this.#effects = options.effects;
    this.#escalation = new TaskEscalation(options.timers);
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  get deadlineAtMs(): number {
    return Math.min(this.#scanAtMs, this.#escalation.deadlineAtMs);
  }

  /** Commands may flow over this connection from now on. */
  open(connection: Connection, nowMs: number): void {
    this.#connection = connection;
    this.#state = 'open';
    this.#scanAtMs = nowMs + TASK_SCAN_MS;
    this.#stalledSinceMs = NEVER_MS;
  }

  /** Nothing new may be sent; what comes is kept until `close`, and answers still count. */
  pause(): void {
    this.#state = 'paused';
    this.#scanAtMs = NEVER_MS;
    this.#escalation.stop();
  }

  /** They may not any more; those that wait come back as lost. */
  close(): void {
    this.#connection = null;
    this.#state = 'closed';
    this.#text = null;
    this.#scanAtMs = NEVER_MS;
    this.#escalation.stop();
    for (let command = this.#waiting.shift(); command !== null; command = this.#waiting.shift()) {
      this.#lose(command);
    }
  }

  submit(command: ScsiCommand, nowMs: number): void {
    command.outcome = 'pending';
    command.submittedAtMs = nowMs;
    if (this.#state === 'closed') {
      this.#lose(command);
      return;
    }
    this.#waiting.push(command);
    this.send(nowMs);
  }

  /**
   * Sends a text request as soon as the window is open, one at a time
   * (RFC 7143 §11.10 (Text Request)).
   */
  sendText(request: TextRequest): void {
    invariant(this.#text === null, 'two text requests at once');
    this.#text = request;
    this.#sendText();
  }

  #sendText(): void {
    const connection = this.#connection;
    if (this.#text === null || connection === null || !connection.canSend) return;
    connection.send.text(this.#text);
    this.#text = null;
  }

  /** Sends what may be sent now. */
  send(nowMs: number): void {
    const connection = this.#connection;
    if (connection === null || this.#state !== 'open') return;
    this.#sendText();
    if (this.#waiting.length === 0) return;
    const deadlineAtMs = nowMs + this.#timers.taskTimeoutMs;
    while (connection.canSend && connection.tasks.count < this.depthMax) {
      const command = this.#waiting.shift();
      if (command === null) return;
      this.#stalledSinceMs = NEVER_MS;
      connection.submit(command, deadlineAtMs);
    }
  }

  /** Does what is due; throws LinkError when only a new connection can help. */
  timeReached(nowMs: number): void {
    if (nowMs >= this.#escalation.deadlineAtMs) {
      const order = this.#escalation.timedOut(nowMs);
      if (order !== null) this.#order(order);
    }
    if (nowMs < this.#scanAtMs) return;
    this.#scanAtMs = nowMs + TASK_SCAN_MS;
    this.#checkStall(nowMs);
    if (this.#escalation.isRunning) return;
    const late = this.#firstLate(nowMs);
    if (late?.command) this.#order(this.#escalation.begin(late, late.command.lun, nowMs));
  }

  /** RFC 7143 §11.6 (Task Management Function Response): which tasks are over, and what next. */
  taskManagementAnswered(initiatorTaskTag: number, response: number, nowMs: number): void {
    const connection = this.#connection;
    if (connection === null) return;
    const late = this.#escalation.task;
    const { lun } = this.#escalation;
    const { ended, next } = this.#escalation.answered(initiatorTaskTag, response, nowMs);
    if (ended === 'task' && late !== null) connection.endTask(late, 'aborted');
    if (ended === 'logicalUnit' || ended === 'all') {
      connection.tasks.forEach((task) => {
        const { upper, lower } = task.command?.lun ?? lun;
        if (ended === 'all' || (upper === lun.upper && lower === lun.lower)) {
          connection.endTask(task, 'aborted');
        }
      });
    }
    if (next !== null) this.#order(next);
  }

  #order(order: EscalationOrder): void {
    const connection = this.#connection;
    this.#effects.push({ type: 'escalated', step: order.step });
    if (order.step === 'reconnect' || connection === null) {
      throw new LinkError('ETIMEDOUT', 'a task took too long and no reset was answered');
    }
    this.#escalation.sent(
      connection.send.taskManagement({
        function: order.function,
        lun: order.lun,
        referencedTask: order.step === 'abortTask' ? order.task : null,
      }),
    );
  }

  /** With nothing in flight only the target can open the window, and one that never does is stuck.
   * */
  #checkStall(nowMs: number): void {
    const isWaiting = this.#waiting.length > 0 || this.#text !== null;
    if (!isWaiting || this.#connection?.tasks.count !== 0) {
      this.#stalledSinceMs = NEVER_MS;
    } else if (this.#stalledSinceMs === NEVER_MS) {
      this.#stalledSinceMs = nowMs;
    } else if (nowMs - this.#stalledSinceMs >= this.#timers.taskTimeoutMs) {
      throw new LinkError('ETIMEDOUT', 'the target keeps its command window closed');
    }
  }

  #firstLate(nowMs: number): Task | null {
    let late: Task | null = null;
    this.#connection?.tasks.forEach((task) => {
      if (late === null && nowMs >= task.deadlineAtMs) late = task;
    });
    return late;
  }

  #lose(command: ScsiCommand): void {
    command.outcome = 'lost';
    this.#completed.push(command);
  }
}
