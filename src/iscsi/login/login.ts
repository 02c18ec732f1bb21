import { invariant, LoginRefusedError, type ProtocolError, UsageError } from '../../base/errors.js';
import { serialAdd } from '../../base/serial32.js';
import {
  FULL_FEATURE_PHASE,
  type LoginRequest,
  type LoginResponse,
  OPERATIONAL_STAGE,
  SECURITY_STAGE,
} from '../pdu/login-pdu.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import {
  decodeText,
  encodeText,
  LOGIN_SEGMENT_BYTES_MAX,
  LOGIN_TEXT_BYTES_MAX,
  quoted,
  splitText,
  TextCollector,
  type TextPair,
} from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { ChapAlgorithm, ChapOptions } from './chap.js';
import { type LoginOffer, offeredPairs } from './login-offer.js';
import { checkLoginResponse } from './login-response-rules.js';
import { type AuthMethod, SecurityNegotiation } from './login-security.js';
import { describeLoginStatus, formatLoginStatus } from './login-status.js';
import {
  isOperationalOnly,
  type NegotiatedKey,
  Negotiation,
  type SessionType,
} from './negotiation.js';
import { isSecurityKey } from './negotiation-keys.js';
import type { PortalAddress } from './portal.js';
import { redirectAddresses } from './redirect-address.js';

export type LoginOptions = {
  readonly initiatorName: string;
  readonly initiatorAlias?: string;
  /** Required for a normal session. */
  readonly targetName?: string;
  readonly sessionType: SessionType;
  /** 6 bytes. */
  readonly isid: Uint8Array;
  /** 0 for a new or reinstated session, else the session the connection is added to. */
  readonly tsih: number;
  /** The session's parameters, when `tsih` is not 0: its session-wide keys are not sent again. */
  readonly sessionParameters?: SessionParameters;
  readonly cid: number;
  readonly initiatorTaskTag: number;
  readonly cmdSN: number;
  readonly chap?: ChapOptions;
  readonly offer: LoginOffer;
  /** Given while requests of the session before this login may be at work at the target. */
  readonly boundGroup?: BoundGroup;
  /** Where it is noted what the target does against the RFC and the login lives with. */
  readonly quirks: QuirkLog;
  /** Unpredictable bytes, for challenges. */
  readonly randomBytes: (count: number) => Buffer;
};

/**
 * The portal group whose session may still work on requests of ours: a login to another one would
 * not end it.
 */
export type BoundGroup = {
  /** Null: its target does not tell. */
  readonly tag: number | null;
  /** The login goes to the address of that session, and so to its group. */
  readonly isSameAddress: boolean;
};

export type LoginStep =
  | { readonly type: 'send'; readonly request: LoginRequest }
  | {
      readonly type: 'done';
      readonly parameters: SessionParameters;
      readonly keys: NegotiatedKey[];
      readonly tsih: number;
      readonly authMethod: AuthMethod;
      /** True when the target has authenticated itself too. */
      readonly isMutual: boolean;
      readonly warnings: string[];
    }
  | {
      readonly type: 'redirect';
      readonly permanent: boolean;
      /** At least one. */
      readonly addresses: PortalAddress[];
      /** False when the target redirected before the authentication that is configured. */
      readonly authenticated: boolean;
    };

/**
 * Login requests of one login at most. RFC 7143 §6.2 (Text Mode Negotiation) asks for six
 * exchanges; a text of 64 KiB takes eight PDUs, and a proposal or a challenge a few more.
 */
const REQUESTS_MAX = 64;

type LoginState = 'fresh' | 'sendingText' | 'awaitingAnswer' | 'ended';
type LoginEvent = 'partSent' | 'textSent' | 'ended';

const LOGIN_MOVES = {
  fresh: { partSent: 'sendingText', textSent: 'awaitingAnswer' },
  sendingText: { partSent: 'sendingText', textSent: 'awaitingAnswer', ended: 'ended' },
  awaitingAnswer: { partSent: 'sendingText', textSent: 'awaitingAnswer', ended: 'ended' },
  ended: {},
} as const satisfies Record<LoginState, Partial<Record<LoginEvent, LoginState>>>;

/**
 * The Login Phase of one connection: RFC 7143 §6.3 (Login Phase). `start` once, then
 * `responseReceived` for each response until it is done, redirects, or throws: LoginRefusedError
 * for the target's refusal, ProtocolError when it breaks a rule, AuthenticationError when it does
 * not prove itself, UsageError when it cannot give what is required. Then the link is to be closed.
 */
export class LoginMachine {
  readonly #options: LoginOptions;
  readonly #security: SecurityNegotiation;
  readonly #negotiation: Negotiation;
  readonly #operationalPairs: TextPair[];
  readonly #collector = new TextCollector(LOGIN_TEXT_BYTES_MAX);
  #state: LoginState = 'fresh';
  #stage: typeof SECURITY_STAGE | typeof OPERATIONAL_STAGE = SECURITY_STAGE;
  #requestCount = 0;
  #lastRequest: LoginRequest | null = null;
  #lastResponse: LoginResponse | null = null;
  #partsLeft: Buffer[] = [];
  /** T bit that the last part of the text is to carry. */
  #transitAfterText = false;
  #isGroupKnown = false;
  /** Operational pairs that came too early. */
  readonly #earlyPairs: TextPair[] = [];

  /** Throws UsageError for options that no login can have. */
  constructor(options: LoginOptions) {
    invariant(options.isid.length === 6, 'an ISID has 6 bytes');
    if (options.sessionType === 'Normal' && options.targetName === undefined) {
      throw new UsageError('a normal session needs a target name');
    }
    this.#options = options;
    const { sessionType } = options;
    this.#operationalPairs = offeredPairs(options.offer, { sessionType, leading: this.#isLeading });
    this.#security = new SecurityNegotiation(options.chap, options.randomBytes, options.quirks);
    const { quirks } = options;
    this.#negotiation = new Negotiation({ sessionType, wanted: this.#operationalPairs, quirks });
  }

  /** The CHAP algorithm the target chose, null before that and without CHAP. */
  get chapAlgorithm(): ChapAlgorithm | null {
    return this.#security.chapAlgorithm;
  }

  /** CHAP has begun and has not ended. */
  get isAuthenticating(): boolean {
    return this.#security.isAuthenticating;
  }

  /** Operational keys have been sent, and nothing has been answered to them. */
  get isOfferUnanswered(): boolean {
    return this.#stage === OPERATIONAL_STAGE && this.#lastResponse?.currentStage !== this.#stage;
  }

  get #isLeading(): boolean {
    return this.#options.tsih === 0;
  }

  /** The first request: our name, the target's name, and the methods of authentication. */
  start(): LoginRequest {
    invariant(this.#state === 'fresh', 'a login is started once');
    const { initiatorName, initiatorAlias, targetName, sessionType } = this.#options;
    const names: TextPair[] = [['InitiatorName', initiatorName]];
    if (initiatorAlias !== undefined) names.push(['InitiatorAlias', initiatorAlias]);
    if (targetName !== undefined) names.push(['TargetName', targetName]);
    if (this.#isLeading) names.push(['SessionType', sessionType]);
    this.#negotiation.offer(names);
    const { pairs, transit } = this.#security.start();
    return this.#sendText([...names, ...pairs], transit);
  }

  responseReceived(response: LoginResponse): LoginStep {
    const request = this.#lastRequest;
    invariant(request !== null && this.#state !== 'ended', 'a response to no login request');
    if (response.initiatorTaskTag !== request.initiatorTaskTag) {
      throw brokenRule('login-tag', 'a login response with another Initiator Task Tag');
    }
    if (response.statusClass !== 0) return this.#refused(response);
    const { quirks } = this.#options;
    checkLoginResponse(response, { request, previous: this.#lastResponse, quirks });
    this.#lastResponse = response;
    if (this.#state === 'sendingText') {
      // RFC 7143 §6.2 (Text Mode Negotiation): a request with the C bit gets an empty answer.
      if (response.data.length > 0 || response.continued) {
        throw brokenRule(
          'login-continue-data',
          'a login request with the C bit got an answer with data',
        );
      }
      return { type: 'send', request: this.#sendNextPart() };
    }
    this.#collector.add(response.data);
    if (response.continued) return { type: 'send', request: this.#sendText([], false) };
    const pairs = decodeText(this.#collector.take(), quirks);
    return this.#stage === SECURITY_STAGE
      ? this.#securityAnswered(pairs, response)
      : this.#operationalAnswered(pairs, response);
  }

  #securityAnswered(pairs: readonly TextPair[], response: LoginResponse): LoginStep {
    const keys = new Map<string, string>();
    for (const pair of pairs) {
      const [key, value] = pair;
      const before = keys.get(key);
      if (isOperationalOnly(key)) {
        const what = `the target sent ${quoted(key)} in the security negotiation`;
        this.#options.quirks.met('key-in-security', what);
        this.#earlyPairs.push(pair);
      } else if (!isSecurityKey(key)) {
        this.#negotiation.targetSent(pair, { stage: 'security', transit: response.transit });
      } else if (before !== undefined && before !== value) {
        throw brokenRule('security-key-twice', `the target sent ${key} with different values`);
      } else {
        if (before !== undefined) this.#repeated(key);
        keys.set(key, value);
      }
    }
    this.#checkPortalGroup('first');
    const move = this.#security.answered(keys);
    if (!response.transit) {
      return { type: 'send', request: this.#sendText(move.pairs, move.transit) };
    }
    this.#stage = OPERATIONAL_STAGE;
    this.#negotiation.offer(this.#operationalPairs);
    return { type: 'send', request: this.#sendText(this.#operationalPairs, true) };
  }

  #operationalAnswered(pairs: readonly TextPair[], response: LoginResponse): LoginStep {
    const answers: TextPair[] = [];
    for (const pair of pairs) {
      const { transit } = response;
      if (pair[0] === 'AuthMethod' && pair[1] === this.#security.outcome?.method) {
        this.#repeated('AuthMethod');
        continue;
      }
      const answer = this.#negotiation.targetSent(pair, { stage: 'operational', transit });
      if (answer !== null) answers.push([pair[0], answer]);
    }
    if (!response.transit) return { type: 'send', request: this.#sendText(answers, true) };
    return this.#finish(response);
  }

  #repeated(key: string): void {
    this.#options.quirks.met('security-key-repeated', `the target sent ${key} again`);
  }

  #finish(response: LoginResponse): LoginStep {
    for (const pair of this.#earlyPairs) {
      if (this.#negotiation.isAnswered(pair[0])) continue;
      this.#negotiation.targetSent(pair, { stage: 'operational', transit: true });
    }
    this.#checkPortalGroup('last');
    const { parameters, keys, warnings } = this.#negotiation.finish(
      this.#options.sessionParameters ?? null,
    );
    const security = this.#security.outcome;
    invariant(security, 'the security stage ended without a result');
    this.#move('ended');
    const { method, mutual } = security;
    const { offered } = this.#security;
    keys.unshift({ key: 'AuthMethod', offered, declaredByTarget: method, inForce: method });
    return {
      type: 'done',
      parameters,
      keys,
      tsih: response.tsih,
      authMethod: method,
      isMutual: mutual,
      warnings: [...this.#security.warnings, ...warnings],
    };
  }

  /**
   * RFC 7143 §6.3.1 (Login Phase Start): the tag comes with the first complete response. A target
   * that does not tell it may be in any group, but for the address that the session used before.
   */
  #checkPortalGroup(response: 'first' | 'last'): void {
    const text = this.#negotiation.inForceOrNull('TargetPortalGroupTag');
    const { boundGroup: bound, quirks, targetName } = this.#options;
    if (text === null) {
      // Discovery logins name no target, and targets in use then leave the tag out.
      if (targetName === undefined || response === 'first') return;
      if (bound && !bound.isSameAddress) throw unknownGroup('the target does not tell its group');
      quirks.met('portal-group-missing', 'the target tells no TargetPortalGroupTag');
      return;
    }
    if (response === 'first') {
      this.#isGroupKnown = true;
    } else if (!this.#isGroupKnown) {
      quirks.met('portal-group-late', 'TargetPortalGroupTag is not in the first login response');
    }
    if (!bound || bound.tag === Number(text)) return;
    if (bound.tag === null) {
      if (bound.isSameAddress) return;
      throw unknownGroup('the group of the portal before is not known');
    }
    throw brokenRule(
      'portal-group',
      `the portal belongs to portal group ${text}, but group ${bound.tag} is expected while ` +
        'requests wait; a session has the portals of one group: name only those',
      { code: 'ERR_PORTAL_GROUP' },
    );
  }

  /**
   * A status that is not success ends the login: RFC 7143 §11.13.5 (Status-Class and
   * Status-Detail).
   */
  #refused(response: LoginResponse): LoginStep {
    this.#move('ended');
    const { statusClass, statusDetail } = response;
    const { name, explanation, nextStep, policy } = describeLoginStatus(statusClass, statusDetail);
    if (policy === 'redirect-permanent' || policy === 'redirect-temporary') {
      const outcome = this.#security.outcome;
      return {
        type: 'redirect',
        permanent: policy === 'redirect-permanent',
        addresses: redirectAddresses(response.data, this.#options.quirks),
        authenticated: this.#options.chap === undefined || outcome?.method === 'CHAP',
      };
    }
    const status = formatLoginStatus(statusClass, statusDetail);
    const hint = statusClass === 2 ? this.#security.refusalHint(statusDetail) : null;
    throw new LoginRefusedError(
      `the target refused the login: ${name} (status ${status}): ${explanation}; ` +
        (hint ?? nextStep),
      { statusClass, statusDetail, ...(hint === null ? {} : { code: 'ERR_CHAP_ALGORITHM' }) },
    );
  }

  #sendText(pairs: readonly TextPair[], transit: boolean): LoginRequest {
    this.#partsLeft = splitText(encodeText(pairs), LOGIN_SEGMENT_BYTES_MAX);
    this.#transitAfterText = transit;
    return this.#sendNextPart();
  }

  #sendNextPart(): LoginRequest {
    const data = this.#partsLeft.shift();
    invariant(data, 'no text is left to send');
    const continued = this.#partsLeft.length > 0;
    this.#move(continued ? 'partSent' : 'textSent');
    this.#requestCount += 1;
    if (this.#requestCount > REQUESTS_MAX) {
      throw brokenRule('login-requests', `the login does not end after ${REQUESTS_MAX} requests`);
    }
    const transit = !continued && this.#transitAfterText;
    const nextStage = this.#stage === SECURITY_STAGE ? OPERATIONAL_STAGE : FULL_FEATURE_PHASE;
    const previous = this.#lastResponse;
    const { isid, tsih, initiatorTaskTag, cid, cmdSN } = this.#options;
    const request: LoginRequest = {
      transit,
      continued,
      currentStage: this.#stage,
      // RFC 7143 §11.12.3 (CSG and NSG): reserved, so 0, without the T bit.
      nextStage: transit ? nextStage : SECURITY_STAGE,
      versionMax: 0,
      versionMin: 0,
      isid,
      tsih,
      initiatorTaskTag,
      cid,
      cmdSN,
      expStatSN: previous === null ? 0 : serialAdd(previous.statSN, 1),
      data,
    };
    this.#lastRequest = request;
    return request;
  }

  #move(event: LoginEvent): void {
    const moves: Partial<Record<LoginEvent, LoginState>> = LOGIN_MOVES[this.#state];
    const next = moves[event];
    invariant(next !== undefined, `login: ${event} while ${this.#state}`);
    this.#state = next;
  }
}

function unknownGroup(why: string): ProtocolError {
  return brokenRule(
    'portal-group-unknown',
    `${why}, and requests wait that may still be at work in another group`,
    { code: 'ERR_PORTAL_GROUP' },
  );
}
