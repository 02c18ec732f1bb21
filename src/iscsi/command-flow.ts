import { NEVER_MS } from '../base/clock.js';
import { LinkError } from '../base/errors.js';
import type { ScsiCommand } from '../scsi/command.js';
import { CommandQueue } from './command-queue.js';
import type { Connection } from './connection.js';
import type { SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';
import { type EscalationOrder, TaskEscalation } from './task-escalation.js';
import type { Task } from './task-table.js';

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
  #scanAtMs = NEVER_MS;

  constructor(options: {
    readonly depthMax: number;
    readonly timers: SessionTimers;
    readonly completed: ScsiCommand[];
    readonly effects: SessionEffect[];
  }) {
    this.depthMax = options.depthMax;
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
    this.#scanAtMs = nowMs + TASK_SCAN_MS;
  }

  /** They may not any more; those that wait come back as lost. */
  close(): void {
    this.#connection = null;
    this.#scanAtMs = NEVER_MS;
    this.#escalation.stop();
    for (let command = this.#waiting.shift(); command !== null; command = this.#waiting.shift()) {
      this.#lose(command);
    }
  }

  submit(command: ScsiCommand, nowMs: number): void {
    command.outcome = 'pending';
    command.submittedAtMs = nowMs;
    if (this.#connection === null) {
      this.#lose(command);
      return;
    }
    this.#waiting.push(command);
    this.send(nowMs);
  }

  /** Sends what may be sent now. */
  send(nowMs: number): void {
    const connection = this.#connection;
    if (connection === null || this.#waiting.length === 0) return;
    const deadlineAtMs = nowMs + this.#timers.taskTimeoutMs;
    while (connection.canSend && connection.tasks.count < this.depthMax) {
      const command = this.#waiting.shift();
      if (command === null) return;
      connection.submit(command, deadlineAtMs);
    }
  }

  /** Does what is due; throws LinkError when only a new connection can help. */
  timeReached(nowMs: number): void {
    if (nowMs >= this.#escalation.deadlineAtMs) {
      this.#order(this.#escalation.timedOut(nowMs));
    }
    if (nowMs < this.#scanAtMs) return;
    this.#scanAtMs = nowMs + TASK_SCAN_MS;
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
