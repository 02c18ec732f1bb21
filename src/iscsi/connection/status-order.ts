import { NEVER_MS } from '../../base/clock.js';
import type { ProtocolError } from '../../base/errors.js';
import { serialAdd, serialDistance } from '../../base/serial32.js';
import { ResponseOpcode } from '../pdu/pdu.js';
import { ResponseHeader } from '../pdu/pdu-response.js';
import type { SegmentCollector } from '../pdu/segment-collector.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { RequestSender } from './request-sender.js';
import { TASKS_MAX, type TaskTable } from './task-table.js';

/** How long the PDU with a StatSN that was left out may still come. */
const GAP_MS = 2000;
/** Numbers beyond the next: a target has no more to answer than there are tasks. */
const EARLY_MAX = TASKS_MAX;
/**
 * Numbers before the next: a target that repeats the number of a request is behind by all that it
 * has answered since. There has to be a bound by RFC 7143 §4.2.2.2 (Response/Status Numbering and
 * Acknowledging).
 */
const BEHIND_MAX = 2 ** 30;
/** Data of PDUs that are kept: sense data and the like. */
const EARLY_BYTES_MAX = 1 << 20;

const NO_DATA = Buffer.alloc(0);

const REUSED =
  'the target uses a StatSN twice; the task tags say which requests its responses are to';
const OUT_OF_ORDER =
  'the target sends responses in another order than their StatSN; early ones wait for their ' +
  'turn, and one command at a time is sent from now on';

type EarlyPdu = { readonly header: ResponseHeader; readonly data: Buffer };

/**
 * The order of what a target reports, by StatSN (RFC 7143 §4.2.2.2 (Response/Status Numbering and
 * Acknowledging)).
 *
 * TCP keeps the order, so a PDU with a number beyond the next was sent too early: istgt has two
 * threads that send. It is kept until its turn has come, so that all takes effect in the order of
 * StatSN: a power-on attention after the writes that were acknowledged before it. RFC 7143 §7.9
 * (Sequence Errors): a number that does not come ends the connection.
 */
export class StatusOrder {
  readonly #send: RequestSender;
  readonly #tasks: TaskTable;
  readonly #quirks: QuirkLog;
  readonly #early = new Map<number, EarlyPdu>();
  #earlyBytes = 0;
  #missingStatSN = 0;
  /** Instant at which the missing number has been waited for long enough. */
  deadlineAtMs = NEVER_MS;
  /** Something is kept. */
  isWaiting = false;

  constructor(options: {
    readonly send: RequestSender;
    readonly tasks: TaskTable;
    readonly quirks: QuirkLog;
  }) {
    this.#quirks = options.quirks;
    this.#send = options.send;
    this.#tasks = options.tasks;
  }

  /** True for a PDU that takes effect now; one that is early is kept, one of before is dropped. */
  takes(header: ResponseHeader, control: SegmentCollector, nowMs: number): boolean {
    const send = this.#send;
    const distance = serialDistance(send.expStatSN, header.statSN);
    if (distance === 0) {
      send.expStatSN = serialAdd(header.statSN, 1);
      return true;
    }
    if (distance < -BEHIND_MAX) throw this.#gap(header.statSN);
    if (distance < 0) return this.#isAnswer(header);
    this.#keep(header, control, { distance, nowMs });
    return false;
  }

  /**
   * Puts the PDU whose turn has come into `header` and `control`, for `takes` and what follows.
   * False while its number is missing, and when nothing is kept any more.
   */
  next(header: ResponseHeader, control: SegmentCollector, nowMs: number): boolean {
    if (!this.isWaiting) return false;
    const { expStatSN } = this.#send;
    const early = this.#early.get(expStatSN);
    if (early === undefined) {
      if (expStatSN !== this.#missingStatSN) this.#waitFor(expStatSN, nowMs);
      return false;
    }
    this.#early.delete(expStatSN);
    this.#earlyBytes -= early.data.length;
    this.isWaiting = this.#early.size > 0;
    if (!this.isWaiting) this.deadlineAtMs = NEVER_MS;
    Object.assign(header, early.header);
    control.begin(early.data.length, null);
    control.append(early.data, 0, early.data.length);
    return true;
  }

  /** Throws ProtocolError if the missing number has not come in time. */
  timeReached(nowMs: number): void {
    if (nowMs < this.deadlineAtMs) return;
    const { size } = this.#early;
    throw brokenRule(
      'statsn-gap',
      `StatSN ${this.#missingStatSN} has not come, and ${size} after it have been waiting for it`,
    );
  }

  /**
   * A number that was used before (gotgt repeats the ExpStatSN of the request): the answer to a
   * request that waits for one is known by its tag. Anything else was received before.
   */
  #isAnswer({ opcode, initiatorTaskTag }: ResponseHeader): boolean {
    const isControl = opcode === ResponseOpcode.nopIn || opcode === ResponseOpcode.taskManagement;
    const isTask = opcode === ResponseOpcode.scsiResponse || opcode === ResponseOpcode.dataIn;
    // The owners of the others know their tags.
    if (!isControl && !(isTask && this.#tasks.find(initiatorTaskTag) !== null)) return false;
    this.#quirks.met('statsn-reused', REUSED);
    return true;
  }

  #keep(
    header: ResponseHeader,
    control: SegmentCollector,
    { distance, nowMs }: { readonly distance: number; readonly nowMs: number },
  ): void {
    const { statSN, opcode } = header;
    const data = opcode === ResponseOpcode.dataIn ? NO_DATA : Buffer.from(control.bytes);
    if (distance > EARLY_MAX || this.#earlyBytes + data.length > EARLY_BYTES_MAX) {
      throw this.#gap(statSN);
    }
    if (this.#early.has(statSN)) return;
    this.#quirks.met('statsn-gap', OUT_OF_ORDER);
    if (!this.isWaiting) this.#waitFor(this.#send.expStatSN, nowMs);
    this.isWaiting = true;
    this.#early.set(statSN, { header: Object.assign(new ResponseHeader(), header), data });
    this.#earlyBytes += data.length;
  }

  #gap(statSN: number): ProtocolError {
    return brokenRule('statsn-gap', `StatSN ${statSN} where ${this.#send.expStatSN} is next`);
  }

  #waitFor(statSN: number, nowMs: number): void {
    this.#missingStatSN = statSN;
    this.deadlineAtMs = nowMs + GAP_MS;
  }
}
