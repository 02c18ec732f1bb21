import { invariant } from '../../base/errors.js';
import { SendQueue } from '../../base/send-queue.js';
import { serialAdd, serialDistance } from '../../base/serial32.js';
import type { ScsiCommand, ScsiOutcome } from '../../scsi/command.js';
import { BHS_BYTES, RESERVED_TAG, RequestOpcode, ResponseOpcode } from '../pdu/pdu.js';
import { PduEvent, PduReader } from '../pdu/pdu-reader.js';
import { decodeLoginResponse, ResponseHeader } from '../pdu/pdu-response.js';
import { SegmentCollector } from '../pdu/segment-collector.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import { LOGIN_SEGMENT_BYTES_MAX } from '../pdu/text.js';
import { brokenRule } from '../quirks/quirks.js';
import { AsyncEvent, decodeReject } from './async-message.js';
import { CommandWindow } from './command-window.js';
import type { ConnectionNotice } from './connection-notice.js';
import type { ConnectionOptions } from './connection-options.js';
import {
  type ConnectionState,
  type ConnectionStateEvent,
  connectionMove,
} from './connection-state.js';
import { controlNotice } from './control-notice.js';
import { acceptDataInHeader, answerR2t } from './data-transfer.js';
import { decodeLogoutResponse } from './logout-answer.js';
import type { LunQueue } from './lun-queues.js';
import { NopReplyLimit } from './nop-reply-limit.js';
import { RequestSender } from './request-sender.js';
import { checkExpDataSN, readScsiResponse, residualOf, saysTasksCleared } from './scsi-response.js';
import { StatusOrder } from './status-order.js';
import { type Task, TaskTable } from './task-table.js';

/** Data-In PDUs with damaged data after which the path is not worth keeping. */
const DAMAGED_MAX = 16;
const BOTH_TAGS = 'the target answers pings with both tags valid; it gets no answer to that';

/**
 * One connection from its first login request to its end; a reconnect makes a new one. Bytes come
 * in by `bytesReceived`, PDUs leave through `queue`, finished commands through `completed`, and
 * the rest through `notices`. A broken rule is thrown as ProtocolError: the owner closes the link.
 */
export class Connection {
  readonly queue: SendQueue;
  readonly notices: ConnectionNotice[] = [];
  readonly tasks = new TaskTable();
  readonly window: CommandWindow;
  /** For the requests that are not commands or logouts; the caller has seen that it may. */
  readonly send: RequestSender;
  state: ConnectionState = 'S2-xptWait';
  /** In force once logged in. */
  parameters: SessionParameters | null = null;
  /** Cuts what is received into PDUs. */
  readonly reader: PduReader;
  /** A command has been answered on it. */
  isUsed = false;
  /** Instant of the last bytes from the target. */
  lastReceivedAtMs = 0;

  readonly #options: ConnectionOptions;
  readonly #header = new ResponseHeader();
  readonly #control = new SegmentCollector();
  readonly #order: StatusOrder;
  readonly #pongs: NopReplyLimit;
  #dataInTask: Task | null = null;
  #damagedCount = 0;
  #logoutTag = RESERVED_TAG;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.queue = new SendQueue(options.pool);
    this.#pongs = new NopReplyLimit(this.queue);
    // RFC 7143 §6.3 (Login Phase): until the end of the login the default length holds.
    this.reader = new PduReader(options.pool, LOGIN_SEGMENT_BYTES_MAX);
    this.window = new CommandWindow(options.firstCmdSN);
    this.send = new RequestSender({
      queue: this.queue,
      window: this.window,
      tasks: this.tasks,
      cid: options.cid,
    });
    this.#order = new StatusOrder({
      send: this.send,
      tasks: this.tasks,
      quirks: options.quirks,
    });
  }

  /** The transport is open: the first login request goes out. */
  linkOpened(nowMs: number): void {
    this.#move('linkOpened');
    this.lastReceivedAtMs = nowMs;
    this.send.login(this.#options.login.start());
  }

  get isLoggedIn(): boolean {
    return this.state === 'S5-loggedIn';
  }

  /** True when a command may be sent now. */
  get canSend(): boolean {
    return this.state === 'S5-loggedIn' && this.window.isOpen;
  }

  /** A Logout Response has come, and it says that the logout succeeded. */
  get isLoggedOut(): boolean {
    return this.state === 'S1-free' && this.#logoutTag !== RESERVED_TAG;
  }

  /** True when a logout request may be sent, and none has been. */
  get canLogOut(): boolean {
    return this.state === 'S5-loggedIn' || this.state === 'S7-logoutRequested';
  }

  /** Sends a command of `queue`; the caller has seen `canSend` and that a task is free. */
  submit(command: ScsiCommand, queue: LunQueue, deadlineAtMs: number): void {
    const task = this.tasks.begin(command);
    invariant(task !== null && this.parameters !== null, 'a command on a connection that is full');
    task.queue = queue;
    task.deadlineAtMs = deadlineAtMs;
    this.send.command(task, this.parameters);
  }

  /** Sends a logout request (RFC 7143 §11.14 (Logout Request)); nothing may be sent after it. */
  logout(reason: number): void {
    this.#move('logoutSent');
    this.#logoutTag = this.send.logout(reason);
  }

  /** Ends a task; PDUs for it after that are dropped. */
  endTask(task: Task, outcome: ScsiOutcome): void {
    const { damaged, bytesDone } = task;
    const command = this.tasks.end(task);
    task.queue?.ended(command);
    command.sentBytes = bytesDone;
    if (outcome === 'answered') this.isUsed = true;
    command.outcome = damaged && outcome === 'answered' ? 'lost' : outcome;
    if (command.isCheckCondition) task.queue?.noteUntold();
    this.#options.completed.push(command);
  }

  /** The link is gone: every task ends as `lost`. The connection is not used again. */
  linkLost(): void {
    if (this.state !== 'S1-free') this.#move('linkLost');
    this.queue.clear();
    this.#dataInTask = null;
    this.tasks.forEach((task) => {
      this.endTask(task, 'lost');
    });
  }

  /** Instant at which `timeReached` has something to do. */
  get deadlineAtMs(): number {
    return this.#order.deadlineAtMs;
  }

  /** Throws ProtocolError if something that has to come has not come in time. */
  timeReached(nowMs: number): void {
    this.#order.timeReached(nowMs);
  }

  /** Takes bytes `start…end` of slab `slab`. Throws ProtocolError, LoginRefusedError and so on. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number, nowMs: number): void {
    this.lastReceivedAtMs = nowMs;
    const reader = this.reader;
    reader.feed(slab, buffer, start, end);
    for (;;) {
      switch (reader.next()) {
        case PduEvent.need:
          return;
        case PduEvent.header:
          this.#headerReceived();
          break;
        case PduEvent.data:
          this.#pieceReceived(slab, buffer);
          break;
        default:
          this.#pduReceived();
          // What a target sends after the end of a connection is dropped.
          if (this.state === 'S1-free' || this.state === 'S8-cleanupWait') return;
      }
    }
  }

  #move(event: ConnectionStateEvent): void {
    this.state = connectionMove(this.state, event);
  }

  #headerReceived(): void {
    const header = this.#header;
    header.decode(this.reader.headerView, this.reader.headerAt);
    this.#dataInTask = null;
    if (this.state === 'S4-inLogin') {
      if (header.opcode !== ResponseOpcode.login) {
        throw brokenRule('login-opcode', `opcode 0x${header.opcode.toString(16)} during login`);
      }
      const at = this.reader.headerAt;
      const bytes = this.reader.header.subarray(at, at + BHS_BYTES);
      this.#control.begin(header.dataSegmentLength, bytes);
      return;
    }
    if (header.opcode === ResponseOpcode.dataIn) {
      const task = this.tasks.find(header.initiatorTaskTag);
      if (task !== null) {
        acceptDataInHeader(task, header, this.#options.quirks);
        this.#dataInTask = task;
      }
      return;
    }
    this.#control.begin(header.dataSegmentLength, null);
  }

  /** The task of the Data-In being received, unless that has ended in its middle. */
  #taskOfDataIn(): Task | null {
    const task = this.#dataInTask;
    return task?.initiatorTaskTag === this.#header.initiatorTaskTag ? task : null;
  }

  #pieceReceived(slab: number, buffer: Buffer): void {
    const { pieceAt, pieceLength } = this.reader;
    const command = this.#taskOfDataIn()?.command;
    if (command) {
      command.dataIn.append(slab, pieceAt, pieceLength);
    } else if (this.#header.opcode !== ResponseOpcode.dataIn) {
      this.#control.append(buffer, pieceAt, pieceLength);
    }
  }

  #pduReceived(): void {
    const header = this.#header;
    if (this.state === 'S4-inLogin') {
      this.#loginReceived();
      return;
    }
    this.window.update(header.expCmdSN, header.maxCmdSN);
    if (this.reader.dataDigestFailed) this.#damagedReceived();
    else this.#takeEffect();
    if (this.#order.isWaiting) this.#takeEarly();
  }

  /** What came before its turn and has it now takes effect. */
  #takeEarly(): void {
    const header = this.#header;
    while (this.#order.next(header, this.#control, this.lastReceivedAtMs)) {
      this.#dataInTask = this.tasks.find(header.initiatorTaskTag);
      this.#takeEffect();
    }
  }

  #takeEffect(): void {
    const { opcode } = this.#header;
    switch (opcode) {
      case ResponseOpcode.dataIn:
        this.#dataInReceived();
        return;
      case ResponseOpcode.scsiResponse:
        if (this.#takesStatSN()) this.#scsiResponseReceived();
        return;
      case ResponseOpcode.r2t:
        this.#r2tReceived();
        return;
      case ResponseOpcode.nopIn:
        this.#nopInReceived();
        return;
      case ResponseOpcode.logout:
        // Nothing follows it, so there is nothing to wait for.
        this.#logoutReceived();
        return;
      default:
        this.#controlReceived();
    }
  }

  #takesStatSN(): boolean {
    return this.#order.takes(this.#header, this.#control, this.lastReceivedAtMs);
  }

  #dataInReceived(): void {
    const header = this.#header;
    if (!header.hasStatus || !this.#takesStatSN()) return;
    const task = this.#taskOfDataIn();
    if (task === null || task.command === null) return;
    task.command.status = header.status;
    task.command.residual = residualOf(header, task.command, this.#options.quirks);
    this.endTask(task, 'answered');
  }

  #scsiResponseReceived(): void {
    const header = this.#header;
    const task = this.tasks.find(header.initiatorTaskTag);
    if (task === null || task.command === null) return;
    const { command, cmdSN } = task;
    const { direction, lun } = command;
    const { quirks } = this.#options;
    if (direction === 'read') checkExpDataSN(task, header, quirks);
    this.endTask(task, readScsiResponse(header, this.#control.bytes, command, quirks));
    if (saysTasksCleared(command)) this.notices.push({ type: 'tasksCleared', lun, cmdSN });
  }

  #r2tReceived(): void {
    const header = this.#header;
    const task = this.tasks.find(header.initiatorTaskTag);
    // Nothing may follow a logout request; a task that has ended answers no R2T.
    if (task === null || this.parameters === null || this.state === 'S6-inLogout') return;
    answerR2t(this.send.writer, task, header, {
      parameters: this.parameters,
      expStatSN: this.send.expStatSN,
      quirks: this.#options.quirks,
    });
  }

  /** RFC 7143 §11.19 (NOP-In): an answer, a question, or only news of the numbers. */
  #nopInReceived(): void {
    const { initiatorTaskTag, targetTransferTag, lunUpper, lunLower } = this.#header;
    if (initiatorTaskTag !== RESERVED_TAG) {
      if (targetTransferTag !== RESERVED_TAG) this.#options.quirks.met('nop-in-tags', BOTH_TAGS);
      if (!this.#takesStatSN()) return;
      const data = Buffer.from(this.#control.bytes);
      this.notices.push({ type: 'pingAnswered', initiatorTaskTag, data });
      return;
    }
    if (targetTransferTag === RESERVED_TAG || this.state === 'S6-inLogout') return;
    this.send.nopReply(targetTransferTag, { upper: lunUpper, lower: lunLower });
    this.#pongs.queued();
  }

  #controlReceived(): void {
    const isReject = this.#header.opcode === ResponseOpcode.reject;
    // First of all: with an opcode that no target has nothing can be said of its StatSN.
    const notice = isReject ? null : controlNotice(this.#header, this.#control.bytes);
    if (!this.#takesStatSN()) return;
    const message = notice?.type === 'asyncReceived' ? notice.message : null;
    if (message?.event === AsyncEvent.logoutRequest) this.#move('logoutAskedFor');
    if (notice === null) this.#rejectReceived();
    else this.notices.push(notice);
  }

  #logoutReceived(): void {
    if (this.state !== 'S6-inLogout') {
      throw brokenRule('logout-unasked', 'a Logout Response that was not asked for');
    }
    const { quirks } = this.#options;
    const answer = decodeLogoutResponse(this.#header, this.#logoutTag, quirks);
    this.#move(answer.response === 0 ? 'logoutAccepted' : 'logoutFailed');
    this.notices.push(answer);
  }

  /**
   * RFC 7143 §7.3 (Usage of Reject PDU in Recovery): a rejected command never was a task, and
   * leaves a gap in CmdSN unless ExpCmdSN says otherwise; any other reject is news.
   */
  #rejectReceived(): void {
    const rejection = decodeReject(this.#header, this.#control.bytes);
    const { opcode, initiatorTaskTag, reason } = rejection;
    const task = opcode === RequestOpcode.scsiCommand ? this.tasks.find(initiatorTaskTag) : null;
    if (task !== null && task.command !== null) {
      task.command.response = 0x100 | reason;
      const isGap = serialDistance(this.window.expCmdSN, task.cmdSN) >= 0;
      if (isGap && this.state !== 'S6-inLogout') this.send.plugCmdSN(task.cmdSN);
      this.endTask(task, 'failed');
    }
    this.notices.push({ type: 'rejected', ...rejection });
  }

  /**
   * RFC 7143 §7.8 (Digest Errors): Data-In is dropped, and the command done again when the target
   * has ended it; without SNACK any other PDU that is lost ends the connection.
   */
  #damagedReceived(): void {
    const header = this.#header;
    this.#damagedCount += 1;
    if (header.opcode !== ResponseOpcode.dataIn || this.#damagedCount > DAMAGED_MAX) {
      throw brokenRule('data-digest', 'the data digest of a PDU does not match', {
        code: 'ERR_DATA_DIGEST',
      });
    }
    const task = this.#taskOfDataIn();
    if (task !== null) task.damaged = true;
    if (header.hasStatus && this.#takesStatSN() && task !== null) this.endTask(task, 'answered');
  }

  #loginReceived(): void {
    const response = decodeLoginResponse(this.#control.header, Buffer.from(this.#control.bytes));
    const step = this.#options.login.responseReceived(response);
    switch (step.type) {
      case 'send':
        this.send.login(step.request);
        return;
      case 'redirect':
        this.#move('loginFailed');
        this.notices.push(step);
        return;
      case 'done':
        this.#move('loginAccepted');
        this.parameters = step.parameters;
        this.send.expStatSN = serialAdd(response.statSN, 1);
        this.window.update(response.expCmdSN, response.maxCmdSN);
        this.reader.agreed(step.parameters);
        this.send.writer.agreed(step.parameters);
        this.notices.push(step);
    }
  }
}
