import { LinkError } from '../base/errors.js';
import type { ScsiAnswer, ScsiRequest, SessionState } from '../config/contract.js';
import { lunFieldToHex } from '../scsi/lun.js';

const INQUIRY = 0x12;
const REPORT_LUNS = 0xa0;
const CHECKED_GOOD = 0x00;
/** Answers kept: some pages of some LUNs. The oldest goes first. */
const ANSWERS_MAX = 256;
/** Answers larger than this are not kept; a REPORT LUNS of 4096 LUNs fits. */
const ANSWER_BYTES_MAX = 64 << 10;
/** Commands that wait for the session to come back; people and scripts ask few at a time. */
const WAITING_MAX = 64;

type Waiting = {
  readonly request: ScsiRequest;
  readonly resolve: (answer: ScsiAnswer) => void;
  readonly reject: (error: unknown) => void;
};

/**
 * Commands that people and scripts send, over the times their session is away, as Microsoft's
 * LoginToTarget has it ("Device removal latency"): INQUIRY and REPORT LUNS are answered from what
 * was last heard, marked as `cached`; every other command waits for the session. What waits fails
 * with LinkError when the removal latency has passed or the session is logged out, and with the
 * ProtocolError when the target breaks the same rule on each connection. A command that was already
 * on its way when the link went fails too, since nobody knows whether it was done.
 */
export class PassthroughQueue {
  readonly #send: (request: ScsiRequest) => Promise<ScsiAnswer>;
  readonly #state: () => SessionState;
  readonly #stuckOn: () => Error | null;
  readonly #answers = new Map<string, ScsiAnswer>();
  #waiting: Waiting[] = [];

  constructor(options: {
    /** One command over the session as it is now; rejects with LinkError when it is away. */
    readonly send: (request: ScsiRequest) => Promise<ScsiAnswer>;
    readonly state: () => SessionState;
    /** The broken rule that keeps the session from getting on, null while it does or may. */
    readonly stuckOn: () => Error | null;
  }) {
    this.#send = options.send;
    this.#state = options.state;
    this.#stuckOn = options.stuckOn;
  }

  async execute(request: ScsiRequest): Promise<ScsiAnswer> {
    if (this.#state() === 'loggedIn') {
      try {
        const answer = await this.#send(request);
        this.#remember(request, answer);
        return answer;
      } catch (error) {
        if (!(error instanceof LinkError) || !isKept(request)) throw error;
      }
    }
    const known = this.#answers.get(keyOf(request));
    if (known !== undefined && isKept(request)) return { ...known, cached: true };
    return this.#wait(request);
  }

  /** The session has moved to this state. */
  stateChanged(to: SessionState): void {
    if (to === 'loggingIn' || to === 'reconnecting') return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { request, resolve, reject } of waiting) {
      if (to === 'loggedIn') this.execute(request).then(resolve, reject);
      else reject(away(to));
    }
  }

  /** The target breaks the same rule on each connection: waiting for another one is of no use. */
  stuck(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #wait(request: ScsiRequest): Promise<ScsiAnswer> {
    const state = this.#state();
    // A link lost on the way may already be back.
    if (state === 'loggedIn') return this.execute(request);
    if (state !== 'reconnecting') return Promise.reject(away(state));
    const stuckOn = this.#stuckOn();
    if (stuckOn !== null) return Promise.reject(stuckOn);
    if (this.#waiting.length >= WAITING_MAX) {
      const why = `the session is reconnecting and ${WAITING_MAX} commands wait for it already`;
      return Promise.reject(new LinkError('ENOBUFS', why));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, resolve, reject });
    });
  }

  #remember(request: ScsiRequest, answer: ScsiAnswer): void {
    if (!isKept(request) || answer.status !== CHECKED_GOOD) return;
    if (answer.data.length > ANSWER_BYTES_MAX) return;
    const key = keyOf(request);
    this.#answers.delete(key);
    this.#answers.set(key, answer);
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > ANSWERS_MAX && oldest !== undefined) this.#answers.delete(oldest);
  }
}

function isKept(request: ScsiRequest): boolean {
  const opcode = request.cdb[0];
  return opcode === INQUIRY || opcode === REPORT_LUNS;
}

function keyOf(request: ScsiRequest): string {
  const { lun, field, cdb } = request;
  return `${field === undefined ? lun : lunFieldToHex(field)} ${cdb.toString('hex')}`;
}

function away(state: SessionState): LinkError {
  const what = state === 'removed' ? 'has been away for the removal latency' : `is ${state}`;
  return new LinkError('ENOTCONN', `the session ${what}`);
}
