import type { Clock } from '../base/clock.js';
import { LinkError, type ProductError } from '../base/errors.js';
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
  readonly asked: Asked;
  readonly resolve: (answer: ScsiAnswer) => void;
  readonly reject: (error: unknown) => void;
};

/** A command with the time it has for all connections together. */
type Asked = {
  readonly request: ScsiRequest;
  readonly patienceMs: number;
  readonly endsAtMs: number;
};

/**
 * Commands that people and scripts send, over the times their session is away, as Microsoft's
 * LoginToTarget has it ("Device removal latency"): INQUIRY and REPORT LUNS are answered from what
 * was last heard, marked as `cached`; every other command waits for the session. Waiting commands
 * fail with LinkError when the removal latency has passed or the session is logged out, and with
 * the ProtocolError when the target breaks the same rule on each connection. A command that was
 * already on its way when the link went fails too, since it is unknown whether it was done.
 * Over all reconnects together a command has one deadline, after which it is not sent again.
 */
export class PassthroughQueue {
  readonly #send: (request: ScsiRequest) => Promise<ScsiAnswer>;
  readonly #state: () => SessionState;
  readonly #stuckOn: () => Error | null;
  readonly #answers = new Map<string, ScsiAnswer>();
  readonly #clock: Clock;
  readonly #patienceMs: () => number;
  readonly #trouble: () => ProductError | null;
  #waiting: Waiting[] = [];

  constructor(options: {
    /** One command over the session as it is now; rejects with LinkError when it is away. */
    readonly send: (request: ScsiRequest) => Promise<ScsiAnswer>;
    readonly state: () => SessionState;
    /** The broken rule that keeps the session from getting on, null while it does or may. */
    readonly stuckOn: () => Error | null;
    readonly clock: Clock;
    /** How long a command may wait, over all reconnects; Infinity: for ever. */
    readonly patienceMs: () => number;
    /** What has gone wrong last between this host and the target. */
    readonly trouble: () => ProductError | null;
  }) {
    this.#send = options.send;
    this.#state = options.state;
    this.#clock = options.clock;
    this.#patienceMs = options.patienceMs;
    this.#trouble = options.trouble;
    this.#stuckOn = options.stuckOn;
  }

  async execute(request: ScsiRequest): Promise<ScsiAnswer> {
    const patienceMs = this.#patienceMs();
    const asked = { request, patienceMs, endsAtMs: this.#clock.nowMs() + patienceMs };
    if (patienceMs === Number.POSITIVE_INFINITY) return this.#run(asked);
    const cancel = this.#clock.at(asked.endsAtMs, () => this.#late(asked));
    try {
      return await this.#run(asked);
    } finally {
      cancel();
    }
  }

  /** One that is on its way has its own time, and is not sent again after it. */
  #late(asked: Asked): void {
    const waiting = this.#waiting.find((one) => one.asked === asked);
    if (waiting === undefined) return;
    this.#waiting = this.#waiting.filter((one) => one !== waiting);
    waiting.reject(tooLate(asked.patienceMs, this.#trouble()));
  }

  async #run(asked: Asked): Promise<ScsiAnswer> {
    const { request } = asked;
    if (this.#state() === 'loggedIn') {
      try {
        const answer = await this.#send(request);
        this.#remember(request, answer);
        return answer;
      } catch (error) {
        if (!(error instanceof LinkError) || !isKept(request)) throw error;
        const isOver = this.#clock.nowMs() >= asked.endsAtMs;
        if (isOver) throw tooLate(asked.patienceMs, this.#trouble() ?? error);
      }
    }
    const known = this.#answers.get(keyOf(request));
    if (known !== undefined && isKept(request)) return { ...known, cached: true };
    return this.#wait(asked);
  }

  /** The session has moved to this state. */
  stateChanged(to: SessionState): void {
    if (to === 'loggingIn' || to === 'reconnecting') return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { asked, resolve, reject } of waiting) {
      if (to === 'loggedIn') this.#run(asked).then(resolve, reject);
      else reject(away(to));
    }
  }

  /** The target breaks the same rule on each connection: waiting for another one is of no use. */
  stuck(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  #wait(asked: Asked): Promise<ScsiAnswer> {
    const state = this.#state();
    // A link lost on the way may already be back.
    if (state === 'loggedIn') return this.#run(asked);
    if (state !== 'reconnecting') return Promise.reject(away(state));
    const stuckOn = this.#stuckOn();
    if (stuckOn !== null) return Promise.reject(stuckOn);
    if (this.#waiting.length >= WAITING_MAX) {
      const why = `the session is reconnecting and ${WAITING_MAX} commands wait for it already`;
      return Promise.reject(new LinkError('ENOBUFS', why));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ asked, resolve, reject });
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

/** The error of a question that had its time, over all reconnects. */
export function tooLate(patienceMs: number, trouble: ProductError | null): LinkError {
  const why = trouble === null ? '' : `: ${trouble.message}`;
  const message = `no answer came within ${patienceMs / 1000} s, over all reconnects${why}`;
  return new LinkError('ETIME', message, trouble === null ? {} : { cause: trouble });
}
