import { LoginMachine, type LoginOptions, type LoginStep } from '../../../src/iscsi/login/login.js';
import type { LoginOffer } from '../../../src/iscsi/login/login-offer.js';
import type { LoginRequest, LoginResponse } from '../../../src/iscsi/pdu/login-pdu.js';
import { QuirkLog, type TargetQuirk } from '../../../src/iscsi/quirks/quirks.js';

/** Builds the answers of a target by hand, with texts written out; uses nothing of src/ for it. */

export const ISID = Buffer.of(0x80, 0x12, 0x34, 0x56, 0x00, 0x01);

export const OFFER: LoginOffer = {
  headerDigest: ['CRC32C', 'None'],
  dataDigest: ['None'],
  maxConnections: 1,
  initialR2T: false,
  immediateData: true,
  maxRecvDataSegmentLength: 262144,
  maxBurstLength: 262144,
  firstBurstLength: 65536,
  maxOutstandingR2T: 4,
  defaultTime2Wait: 0,
  defaultTime2Retain: 0,
  errorRecoveryLevel: 0,
};

export const OPTIONS: Omit<LoginOptions, 'quirks'> = {
  initiatorName: 'iqn.1999-07.com.os:hostid.77',
  targetName: 'iqn.1999-07.com.example:diskarray.sn.88',
  sessionType: 'Normal',
  isid: ISID,
  tsih: 0,
  cid: 0,
  initiatorTaskTag: 0x11,
  cmdSN: 123,
  offer: OFFER,
  randomBytes: (count) => Buffer.alloc(count, 0x5a),
};

/** What tgt 1.0 answers to the operational keys above. */
export const TGT_ANSWER = [
  'HeaderDigest=None',
  'DataDigest=None',
  'DefaultTime2Wait=2',
  'DefaultTime2Retain=0',
  'ErrorRecoveryLevel=0',
  'MaxConnections=1',
  'InitialR2T=Yes',
  'ImmediateData=Yes',
  'MaxBurstLength=262144',
  'FirstBurstLength=65536',
  'MaxOutstandingR2T=1',
  'DataPDUInOrder=Yes',
  'DataSequenceInOrder=Yes',
];

export const text = (lines: readonly string[]) =>
  Buffer.from(lines.map((line) => `${line}\0`).join(''), 'utf8');

export const linesOf = (request: LoginRequest) =>
  request.data.toString('utf8').split('\0').slice(0, -1);

export type Answer = Partial<Omit<LoginResponse, 'data'>> & {
  readonly lines?: readonly string[];
  readonly data?: Buffer;
};

/** Security stage ended by the target, as tgt does it. */
export const NO_SECURITY: Answer = {
  transit: true,
  nextStage: 1,
  lines: ['TargetPortalGroupTag=1', 'AuthMethod=None'],
};

/** The final response; `lines` are the answers to the operational keys. */
export const accept = (lines: readonly string[] = TGT_ANSWER): Answer => ({
  transit: true,
  nextStage: 3,
  tsih: 256,
  lines,
});

/** One login with a target that sends the given answers. */
export class LoginScript {
  readonly machine: LoginMachine;
  readonly requests: LoginRequest[] = [];
  /** What the login has told of the target, in order. */
  readonly quirks: TargetQuirk[] = [];
  readonly log = new QuirkLog((quirk) => this.quirks.push(quirk));
  #statSN = 0xfffffffe;

  constructor(options: Partial<LoginOptions> = {}) {
    this.machine = new LoginMachine({ quirks: this.log, ...OPTIONS, ...options });
    this.requests.push(this.machine.start());
  }

  get request(): LoginRequest {
    return this.requests.at(-1)!;
  }

  get lines(): string[] {
    return linesOf(this.request);
  }

  /** Sends one response: header fields are those a correct target sends, unless given. */
  answer(answer: Answer = {}): LoginStep {
    const { lines, ...fields } = answer;
    const response: LoginResponse = {
      transit: false,
      continued: false,
      currentStage: this.request.currentStage,
      nextStage: 0,
      versionMax: 0,
      versionActive: 0,
      isid: ISID,
      tsih: 0,
      initiatorTaskTag: 0x11,
      statSN: this.#statSN,
      expCmdSN: 123,
      maxCmdSN: 154,
      statusClass: 0,
      statusDetail: 0,
      data: text(lines ?? []),
      ...fields,
    };
    this.#statSN = (this.#statSN + 1) % 2 ** 32;
    const step = this.machine.responseReceived(response);
    if (step.type === 'send') this.requests.push(step.request);
    return step;
  }

  /** As `answer`, for the last response. */
  done(answer: Answer): Extract<LoginStep, { type: 'done' }> {
    const step = this.answer(answer);
    if (step.type !== 'done') throw new Error(`the login is not done but wants to ${step.type}`);
    return step;
  }
}

/** A login at the point where the operational keys are on their way. */
export function operational(options: Partial<LoginOptions> = {}): LoginScript {
  const script = new LoginScript(options);
  script.answer(NO_SECURITY);
  return script;
}
