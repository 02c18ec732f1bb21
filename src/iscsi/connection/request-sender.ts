import type { SendQueue } from '../../base/send-queue.js';
import type { LunField } from '../../scsi/command.js';
import type { LoginRequest, TextRequest } from '../pdu/login-pdu.js';
import { RESERVED_TAG } from '../pdu/pdu.js';
import * as request from '../pdu/pdu-request.js';
import { PduWriter } from '../pdu/pdu-writer.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import type { CommandWindow } from './command-window.js';
import { sendCommand } from './data-transfer.js';
import type { Task, TaskTable } from './task-table.js';

const NO_DATA = Buffer.alloc(0);

/**
 * Sends the initiator's PDUs on one connection: it puts in the tags and the numbers of the moment
 * (RFC 7143 §4.2.2 (Ordering and iSCSI Numbering)).
 */
export class RequestSender {
  readonly writer: PduWriter;
  /** Next StatSN we expect; every PDU acknowledges up to it. */
  expStatSN = 0;
  readonly #window: CommandWindow;
  readonly #tasks: TaskTable;
  readonly #cid: number;

  constructor(options: {
    readonly queue: SendQueue;
    readonly window: CommandWindow;
    readonly tasks: TaskTable;
    readonly cid: number;
  }) {
    this.writer = new PduWriter(options.queue);
    this.#window = options.window;
    this.#tasks = options.tasks;
    this.#cid = options.cid;
  }

  /** Numbers the task and sends its command with the data that may go unasked. */
  command(task: Task, parameters: SessionParameters): void {
    task.cmdSN = this.#window.take();
    sendCommand(this.writer, task, parameters, this.expStatSN);
  }

  login(fields: LoginRequest): void {
    const at = this.writer.begin();
    request.writeLogin(this.writer.out, at, fields);
    this.writer.end(at);
    this.writer.dataCopy(fields.data);
  }

  /** RFC 7143 §11.10 (Text Request); takes a CmdSN. */
  text(fields: TextRequest): void {
    const at = this.writer.begin();
    const cmdSN = this.#window.take();
    request.writeText(this.writer.out, at, { ...fields, cmdSN, expStatSN: this.expStatSN });
    this.writer.end(at);
    this.writer.dataCopy(fields.data);
  }

  /** RFC 7143 §11.5 (Task Management Function Request); returns its tag. */
  taskManagement(order: {
    readonly function: number;
    readonly lun: LunField;
    readonly referencedTask: Task | null;
  }): number {
    const initiatorTaskTag = this.#tasks.nextControlTag();
    const at = this.writer.begin();
    request.writeTaskManagement(this.writer.out, at, {
      function: order.function,
      lun: order.lun,
      initiatorTaskTag,
      referencedTaskTag: order.referencedTask?.initiatorTaskTag ?? RESERVED_TAG,
      cmdSN: this.#window.cmdSN,
      expStatSN: this.expStatSN,
      refCmdSN: order.referencedTask?.cmdSN ?? 0,
    });
    this.writer.end(at);
    return initiatorTaskTag;
  }

  /** RFC 7143 §11.14 (Logout Request); returns its tag. */
  logout(reason: number): number {
    const initiatorTaskTag = this.#tasks.nextControlTag();
    const at = this.writer.begin();
    request.writeLogout(this.writer.out, at, {
      reason,
      initiatorTaskTag,
      cid: this.#cid,
      cmdSN: this.#window.cmdSN,
      expStatSN: this.expStatSN,
    });
    this.writer.end(at);
    return initiatorTaskTag;
  }

  /** A question of our own; returns the tag its answer will have. */
  nopOut(data: Buffer): number {
    const initiatorTaskTag = this.#tasks.nextControlTag();
    this.#nopOut({ initiatorTaskTag, targetTransferTag: RESERVED_TAG, data, cmdSN: null });
    return initiatorTaskTag;
  }

  /** The answer to a NOP-In that asks for one: its tag and LUN come back. */
  nopReply(targetTransferTag: number, lun: LunField): void {
    const initiatorTaskTag = RESERVED_TAG;
    this.#nopOut({ initiatorTaskTag, targetTransferTag, lun, data: NO_DATA, cmdSN: null });
  }

  /** RFC 7143 §7.3 (Usage of Reject PDU in Recovery): uses up a number the target did not take. */
  plugCmdSN(cmdSN: number): void {
    const initiatorTaskTag = this.#tasks.nextControlTag();
    this.#nopOut({ initiatorTaskTag, targetTransferTag: RESERVED_TAG, data: NO_DATA, cmdSN });
  }

  #nopOut(ping: {
    readonly initiatorTaskTag: number;
    readonly targetTransferTag: number;
    readonly lun?: LunField;
    readonly data: Buffer;
    /** A number to use up; null sends the ping immediate. */
    readonly cmdSN: number | null;
  }): void {
    const at = this.writer.begin();
    request.writeNopOut(this.writer.out, at, {
      lun: ping.lun ?? request.NO_LUN,
      initiatorTaskTag: ping.initiatorTaskTag,
      targetTransferTag: ping.targetTransferTag,
      immediate: ping.cmdSN === null,
      cmdSN: ping.cmdSN ?? this.#window.cmdSN,
      expStatSN: this.expStatSN,
      dataLength: ping.data.length,
    });
    this.writer.end(at);
    this.writer.dataCopy(ping.data);
  }
}
