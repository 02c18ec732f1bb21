import { NEVER_MS } from '../../base/clock.js';
import { invariant, LinkError } from '../../base/errors.js';
import { serialLess } from '../../base/serial32.js';
import type { LunField, ScsiCommand } from '../../scsi/command.js';
import { lunEquals } from '../../scsi/lun.js';
import type { Connection } from '../connection/connection.js';
import { LunQueues } from '../connection/lun-queues.js';
import { TASKS_MAX, type Task } from '../connection/task-table.js';
import type { TextRequest } from '../pdu/login-pdu.js';
import type { SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';
import { type EscalationOrder, TaskEscalation } from './task-escalation.js';

/** How often the tasks in flight are checked for one that takes too long. */
const TASK_SCAN_MS = 1000;

/** A reset of a logical unit that a caller requests, by a number of the caller. */
type ResetRequest = { readonly lun: LunField; readonly request: number };

/**
 * The commands of a session: those that wait for the window or the depth, those in flight on its
 * connection, and what is done about one that takes too long.
 */
export class CommandFlow {
  readonly #timers: SessionTimers;
  readonly #completed: ScsiCommand[];
  readonly #effects: SessionEffect[];
  readonly #queues: LunQueues;
  readonly #escalation: TaskEscalation;
  #connection: Connection | null = null;
  #state: 'closed' | 'open' | 'paused' = 'closed';
  #text: TextRequest | null = null;
  #scanAtMs = NEVER_MS;
  #tasksMax = TASKS_MAX;
  /** The reset that runs, if it was asked for. */
  #wanted: ResetRequest | null = null;
  /** Resets that were asked for, and wait for one that runs. */
  #resets: ResetRequest[] = [];
  /** Instant since which commands wait and the target has let none out. */
  #stalledSinceMs = NEVER_MS;

  constructor(options: {
    readonly depthMax: number;
    readonly timers: SessionTimers;
    readonly completed: ScsiCommand[];
    readonly effects: SessionEffect[];
  }) {
    this.#queues = new LunQueues(options.depthMax);
    this.#timers = options.timers;
    this.#completed = options.completed;
    this.#effects = options.effects;
    this.#escalation = new TaskEscalation(options.timers);
  }

  get waitingCount(): number {
    return this.#queues.waitingCount;
  }

  /** Block I/O in flight at most, see `SessionConfig.queueDepthMax`; those above it still end. */
  limitDepth(depthMax: number): void {
    this.#queues.depthMax = depthMax;
  }

  /**
   * Commands of one LUN in flight at most, control commands included and over reconnects; Infinity
   * lifts it.
   */
  limitLun(lun: LunField, depthMax: number): void {
    this.#queues.of(lun).depthMax = depthMax;
  }

  /**
   * One command at a time from now on, over all LUNs and control commands. A target that sends
   * responses out of order has several writers for one connection, and they may mix the bytes of
   * two responses (istgt with QueueDepth 0 and several LUNs does), so that data looks right and is
   * not. With one command there is one response.
   */
  sendOneAtATime(): void {
    this.#tasksMax = 1;
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

  /** Nothing new may be sent; new commands are kept until `close`, and answers still count. */
  pause(): void {
    this.#state = 'paused';
    this.#scanAtMs = NEVER_MS;
    this.#wantedEnds(false);
    this.#escalation.stop();
  }

  /** They may not any more; those that wait come back as lost. */
  close(): void {
    this.#connection = null;
    this.#state = 'closed';
    this.#text = null;
    this.#scanAtMs = NEVER_MS;
    this.#wantedEnds(false);
    this.#escalation.stop();
    for (const reset of this.#resets.splice(0)) this.#unitReset(reset, false);
    const queues = this.#queues;
    for (let command = queues.drain(); command !== null; command = queues.drain()) {
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
    this.#queues.push(command);
    this.send(nowMs);
  }

  /**
   * Tells the owner of a command that has an outcome. Until the owner of one that ended in CHECK
   * CONDITION has the outcome nothing more is sent to the LUN: it may be another disk by now, and
   * the owner may want to recall waiting commands.
   */
  tell(command: ScsiCommand, nowMs: number): void {
    // The owner may send the command again at once, and then it has no status.
    const { lun, isCheckCondition } = command;
    command.owner.scsiCommandDone(command);
    if (!isCheckCondition) return;
    this.#queues.of(lun).told();
    this.send(nowMs);
  }

  /** Commands that wait to be sent to this LUN come back as lost, control commands excepted. */
  recall(lun: LunField): void {
    const queues = this.#queues;
    for (let command = queues.recall(lun); command !== null; command = queues.recall(lun)) {
      this.#lose(command);
    }
  }

  /** Calls `visit` for each command of the LUN that waits or is in flight, but control commands. */
  forEachOf(lun: LunField, visit: (command: ScsiCommand) => void): void {
    this.#queues.of(lun).waiting.forEach(visit);
    this.#connection?.tasks.forEach(({ command }) => {
      if (command !== null && !command.isControl && lunEquals(command.lun, lun)) visit(command);
    });
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

  /**
   * Sends what may be sent now. While a reset is pending its LUN gets nothing new, and while the
   * target is being reset no LUN does: what is sent after the request is not covered by its answer,
   * and would run although its initiator believes that it has ended.
   */
  send(nowMs: number): void {
    const connection = this.#connection;
    if (connection === null || this.#state !== 'open') return;
    this.#sendText();
    const queues = this.#queues;
    const { step, lun } = this.#escalation;
    if (queues.waitingCount === 0 || !connection.canSend || step === 'targetWarmReset') return;
    const deadlineAtMs = nowMs + this.#timers.taskTimeoutMs;
    queues.begin(connection.window.room, step === 'logicalUnitReset' ? queues.of(lun) : null);
    while (connection.canSend && connection.tasks.count < this.#tasksMax) {
      if (connection.queue.isCrowded) return;
      const command = queues.next();
      if (command === null || queues.taken === null) return;
      this.#stalledSinceMs = NEVER_MS;
      connection.submit(command, queues.taken, deadlineAtMs);
      if (command.isControl) tellSent(command);
    }
  }

  /**
   * Asks the target to end all tasks of the LUN, those of other sessions too (RFC 7143 §11.5.1
   * (Function)). The effect `unitReset` tells how that ended, once for each call.
   */
  resetUnit(reset: ResetRequest, nowMs: number): void {
    if (this.#state !== 'open') {
      this.#unitReset(reset, false);
      return;
    }
    this.#resets.push(reset);
    this.#askAboutLate(nowMs);
  }

  #unitReset(reset: ResetRequest, isDone: boolean): void {
    this.#effects.push({ type: 'unitReset', ...reset, isDone });
  }

  /** The reset that runs, if one that was asked for does, has ended. */
  #wantedEnds(isDone: boolean): void {
    const wanted = this.#wanted;
    this.#wanted = null;
    if (wanted !== null) this.#unitReset(wanted, isDone);
  }

  /** Does what is due; throws LinkError when only a new connection can help. */
  timeReached(nowMs: number): void {
    if (nowMs >= this.#escalation.deadlineAtMs) {
      const order = this.#escalation.timedOut(nowMs);
      this.#wantedEnds(false);
      if (order === null) this.#askAboutLate(nowMs);
      else this.#order(order);
    }
    if (nowMs < this.#scanAtMs) return;
    this.#scanAtMs = nowMs + TASK_SCAN_MS;
    this.#queues.scanned();
    this.#checkStall(nowMs);
    this.#askAboutLate(nowMs);
  }

  /**
   * A command of `lun` with this CmdSN got the report that tasks have been cleared. Commands of
   * one LUN are delivered in the order of their CmdSN, so those with a lower one were there before
   * it: they would have got it in its place had they come after the clearing. They are asked about
   * now, for they may never be answered.
   */
  tasksCleared(lun: LunField, cmdSN: number, nowMs: number): void {
    this.#connection?.tasks.forEach((task) => {
      if (task.command === null || !lunEquals(task.command.lun, lun)) return;
      if (serialLess(task.cmdSN, cmdSN)) task.deadlineAtMs = Math.min(task.deadlineAtMs, nowMs);
    });
    this.#askAboutLate(nowMs);
  }

  /**
   * Begins with a reset that was asked for, or with the first task that is late, unless another one
   * is being dealt with.
   */
  #askAboutLate(nowMs: number): void {
    if (this.#state !== 'open' || this.#escalation.isRunning) return;
    const wanted = this.#resets.shift();
    if (wanted !== undefined) {
      this.#wanted = wanted;
      this.#order(this.#escalation.beginReset(wanted.lun, nowMs));
      return;
    }
    const late = this.#firstLate(nowMs);
    if (late?.command) this.#order(this.#escalation.begin(late, late.command.lun, nowMs));
  }

  /** RFC 7143 §11.6 (Task Management Function Response): which tasks are over, and what next. */
  taskManagementAnswered(initiatorTaskTag: number, response: number, nowMs: number): void {
    const connection = this.#connection;
    if (connection === null) return;
    const { task: late } = this.#escalation;
    const { ended, next } = this.#escalation.answered(initiatorTaskTag, response, nowMs);
    if (!this.#escalation.isRunning) this.#wantedEnds(ended !== 'none');
    if (ended === 'task' && late !== null) connection.endTask(late, 'aborted');
    if (ended === 'logicalUnit' || ended === 'all') this.#endReset(connection, ended);
    if (next !== null) this.#order(next);
    else this.#askAboutLate(nowMs);
  }

  /** A reset is done: only the tasks before its request have ended by it. */
  #endReset(connection: Connection, ended: 'logicalUnit' | 'all'): void {
    const { lun, cmdSN } = this.#escalation;
    connection.tasks.forEach((task) => {
      if (task.command === null || !serialLess(task.cmdSN, cmdSN)) return;
      if (ended === 'all' || lunEquals(task.command.lun, lun)) connection.endTask(task, 'aborted');
    });
  }

  #order(order: EscalationOrder): void {
    const connection = this.#connection;
    this.#effects.push({ type: 'escalated', step: order.step, isWanted: this.#wanted !== null });
    if (order.step === 'reconnect' || connection === null) {
      throw new LinkError('ETIMEDOUT', 'a task took too long and no reset was answered');
    }
    const { cmdSN } = connection.window;
    const initiatorTaskTag = connection.send.taskManagement({
      function: order.function,
      lun: order.lun,
      referencedTask: order.step === 'abortTask' ? order.task : null,
    });
    this.#escalation.sent({ initiatorTaskTag, cmdSN });
  }

  /** With nothing in flight only the target can let commands out; one that never does is stuck. */
  #checkStall(nowMs: number): void {
    const isWaiting = this.#queues.waitingCount > 0 || this.#text !== null;
    // While a reset is pending commands wait for that, and it has a time of its own.
    if (!isWaiting || this.#escalation.isRunning || this.#connection?.tasks.count !== 0) {
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

/** The command has been handed to the link; the receiver of this call only notes it. */
function tellSent(command: ScsiCommand): void {
  const { onSent } = command;
  command.onSent = null;
  onSent?.();
}
