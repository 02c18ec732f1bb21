import { invariant, UsageError } from '../../base/errors.js';
import type { DigestName, SessionParameters, TaskReporting } from '../pdu/session-parameters.js';
import { printable, quoted, RESERVED_ANSWERS, type TextPair } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import { isSecurityKey, KEY_ROWS, type KeyRow } from './negotiation-keys.js';
import { answerProposal, cautious, isDecidedByProposal, judgeReply } from './negotiation-rules.js';
import { iscsiNamesEqual } from './target-name.js';

export type SessionType = 'Normal' | 'Discovery';

/** One key for display: what we sent, what the target sent, and what holds. */
export type NegotiatedKey = {
  readonly key: string;
  readonly offered: string | null;
  readonly declaredByTarget: string | null;
  /**
   * For MaxRecvDataSegmentLength, which each side declares for itself, the target's value; ours
   * is `offered`. The default of RFC 7143 §13 (Login/Text Operational Text Keys) where nothing was
   * agreed.
   */
  readonly inForce: string;
};

/** Where a pair of the target came from. */
type PairContext = {
  readonly stage: 'security' | 'operational';
  /** T bit of the response: nothing in it may need an answer. */
  readonly transit: boolean;
};

/** What a connection added to a session cannot change. */
type SessionWideParameters = Omit<
  SessionParameters,
  | 'headerDigest'
  | 'dataDigest'
  | 'initiatorMaxRecvDataSegmentLength'
  | 'targetMaxRecvDataSegmentLength'
  | 'targetPortalGroupTag'
>;

/** Keys that are only shown or compared: the last of several values counts. */
const LAST_COUNTS: ReadonlySet<string> = new Set(['TargetAlias', 'TargetPortalGroupTag']);

/**
 * RFC 7143 §12 (iSCSI Security Text Keys and Authentication Methods): neither this nor a vendor's
 * key is allowed in the security stage.
 */
export function isOperationalOnly(key: string): boolean {
  const stage = KEY_ROWS.get(key)?.stage ?? 'operational';
  return stage === 'operational' && !isSecurityKey(key);
}

function isDeclared(row: KeyRow | undefined): boolean {
  return row?.rule.kind === 'declaredNumber' || row?.rule.kind === 'declaredText';
}

type KeyState = { offered: string | null; fromTarget: string | null; inForce: string | null };

/**
 * RFC 7143 §6.2 (Text Mode Negotiation) for one login: keeps what either side said of each key,
 * judges the target's replies and answers its proposals. Knows nothing of PDUs.
 */
export class Negotiation {
  readonly #sessionType: SessionType;
  readonly #wanted: ReadonlyMap<string, string>;
  readonly #states = new Map<string, KeyState>();
  readonly #warnings: string[] = [];
  readonly #quirks: QuirkLog;

  /** `wanted`: what we would propose or declare per key, as `offeredPairs` gives it. */
  constructor(options: {
    readonly sessionType: SessionType;
    readonly wanted: TextPair[];
    readonly quirks: QuirkLog;
  }) {
    this.#sessionType = options.sessionType;
    this.#quirks = options.quirks;
    this.#wanted = new Map(options.wanted);
  }

  /** Notes that `pairs` are sent, so that the answer to them is a reply. */
  offer(pairs: readonly TextPair[]): void {
    for (const [key, value] of pairs) {
      const state = this.#state(key);
      invariant(state.offered === null, `${key} is offered twice in one login`);
      state.offered = value;
    }
  }

  /** The target has sent the key. */
  isAnswered(key: string): boolean {
    return this.#states.get(key)?.fromTarget != null;
  }

  /** The value agreed on or declared for `key`, null when there is none so far. */
  inForceOrNull(key: string): string | null {
    return this.#states.get(key)?.inForce ?? null;
  }

  /**
   * Takes one pair of the target that is not a security key. Returns the answer to send, or null
   * when none is due. Throws ProtocolError for what the rules of the key do not allow.
   */
  targetSent([key, value]: TextPair, context: PairContext): string | null {
    const row = KEY_ROWS.get(key);
    this.#checkPlace(key, row, context);
    const state = this.#state(key);
    if (state.fromTarget !== null && !row?.repeatable) {
      if (state.fromTarget !== value && !LAST_COUNTS.has(key)) {
        throw brokenRule('key-twice', `the target sent ${key} twice with different values`);
      }
      this.#quirks.met('key-repeated', `the target sent ${key} more than once during login`);
      if (state.fromTarget === value) return null;
    }
    state.fromTarget = value;
    if (RESERVED_ANSWERS.has(value) && (state.offered === null || isDeclared(row))) {
      return this.#answeredNothing(key, value, row, state);
    }
    if (!row) return this.#unknownKey(key, context);
    if (isDeclared(row)) {
      this.#declared(key, value, row, state);
      return null;
    }
    if (state.offered !== null) {
      const exchange = { key, row, offered: state.offered, reply: value };
      state.inForce = judgeReply(exchange, this.#quirks);
      return null;
    }
    return this.#proposed(key, value, row, context);
  }

  /** Answers of ours are the last word on the keys they name. */
  #answered(key: string, answer: string): string {
    const state = this.#state(key);
    state.offered = answer;
    state.inForce = RESERVED_ANSWERS.has(answer) ? null : answer;
    return answer;
  }

  #checkPlace(key: string, row: KeyRow | undefined, context: PairContext): void {
    // RFC 7143 §6.3 (Login Phase): a key not allowed in the current stage is a protocol error.
    if (isSecurityKey(key)) {
      throw brokenRule(
        'security-key-place',
        `security key ${key} outside the security negotiation`,
      );
    }
    invariant(!(context.stage === 'security' && isOperationalOnly(key)), `${key} is too early`);
    if (row?.stage === 'fullFeature') {
      throw brokenRule('key-in-login', `${key} during login`, { section: row.section });
    }
  }

  /** RFC 7143 §6.2 (Text Mode Negotiation): neither a declaration nor silence has an answer. */
  #answeredNothing(key: string, value: string, row: KeyRow | undefined, state: KeyState): null {
    const isExpected = value === 'NotUnderstood' && row?.later === true && state.offered !== null;
    if (isExpected) return null;
    const what = `the target sent ${key}=${value}`;
    if (state.offered === null) {
      this.#quirks.met('reserved-proposed', `${what}, and nothing was offered`);
    } else {
      this.#quirks.met('declaration-answered', `${what} to a declaration of ours`);
    }
    return null;
  }

  #declared(key: string, value: string, row: KeyRow, state: KeyState): void {
    if (row.senders === 'initiator') {
      const what = `the target sent ${key}, which only initiators send`;
      const isSameName = key === 'TargetName' && iscsiNamesEqual(state.offered ?? '', value);
      if (state.offered !== value && !isSameName) {
        const { section } = row;
        throw brokenRule('key-of-initiators-differs', `${what}, as ${quoted(value)}`, { section });
      }
      this.#quirks.met('key-of-initiators', what, row.section);
      return;
    }
    state.inForce = judgeReply({ key, row, offered: '', reply: value }, this.#quirks);
  }

  #unknownKey(key: string, context: PairContext): string | null {
    this.#warnings.push(`the target sent key ${quoted(key)}, which is not understood`);
    return context.transit ? null : this.#answered(key, 'NotUnderstood');
  }

  #proposed(key: string, value: string, row: KeyRow, context: PairContext): string | null {
    const irrelevant = row.irrelevantInDiscovery && this.#sessionType === 'Discovery';
    const preferred = this.#wanted.get(key) ?? row.defaultValue;
    if (context.transit) {
      // RFC 7143 §6.2.2 (Simple-Value Negotiations): a value that decides alone needs no answer.
      if (irrelevant || row.rule.kind === 'obsolete') {
        this.#warnings.push(`the target proposed ${key}, which is of no use, and got no answer`);
      } else if (isDecidedByProposal(row.rule, value)) {
        this.#state(key).inForce = value;
      } else {
        this.#state(key).inForce = this.#lastWord(key, value, row, preferred);
      }
      return null;
    }
    const answer = irrelevant ? 'Irrelevant' : answerProposal(row.rule, value, preferred);
    return this.#answered(key, answer);
  }

  /**
   * A proposal that ends the stage, so that no answer is possible: the target may work with its own
   * value or with ours, and the stricter one is safe with both.
   */
  #lastWord(key: string, value: string, row: KeyRow, preferred: string): string {
    const answer = answerProposal(row.rule, value, preferred);
    const isSafe = row.rule.kind === 'number' && answer !== 'Reject';
    const isNone = row.rule.kind === 'list' && value === 'None' && answer === 'None';
    if (!(isSafe || isNone) || (key === 'ErrorRecoveryLevel' && value !== '0')) {
      throw brokenRule(
        'proposal-unanswerable',
        `${key} needs an answer, but the T bit ends the stage`,
      );
    }
    const used = cautious(row.rule, answer, row.defaultValue) ?? answer;
    this.#quirks.met(
      'proposal-last',
      `the target proposes ${key}=${value} in the response that ends the stage; ${used} is used`,
    );
    return used;
  }

  /**
   * What holds at the end. `session` is given for a connection added to a session, whose
   * session-wide parameters stay as they are. Throws UsageError when a digest that was required
   * is refused.
   */
  finish(session: SessionParameters | null): {
    readonly parameters: SessionParameters;
    readonly keys: NegotiatedKey[];
    readonly warnings: string[];
  } {
    this.#warnUnanswered();
    const alias = this.#states.get('TargetAlias')?.fromTarget ?? null;
    const tag = this.inForceOrNull('TargetPortalGroupTag');
    const connection = {
      headerDigest: this.#digest('HeaderDigest'),
      dataDigest: this.#digest('DataDigest'),
      initiatorMaxRecvDataSegmentLength: Number(
        this.#states.get('MaxRecvDataSegmentLength')?.offered ?? '8192',
      ),
      targetMaxRecvDataSegmentLength: this.#number('MaxRecvDataSegmentLength'),
      targetPortalGroupTag: tag === null ? null : Number(tag),
    };
    const parameters: SessionParameters = {
      ...(session ?? this.#sessionWide(alias)),
      ...connection,
    };
    return { parameters, keys: this.#display(), warnings: this.#warnings };
  }

  #sessionWide(alias: string | null): SessionWideParameters {
    const initialR2T = this.#boolean('InitialR2T');
    const immediateData = this.#boolean('ImmediateData');
    const maxBurstLength = this.#number('MaxBurstLength');
    const firstBurstLength = this.#number('FirstBurstLength');
    const agreed = this.inForceOrNull('FirstBurstLength') !== null;
    const isUsed = !initialR2T || immediateData;
    if (agreed && isUsed && firstBurstLength > maxBurstLength) {
      this.#quirks.met(
        'burst-order',
        `FirstBurstLength ${firstBurstLength} exceeds MaxBurstLength ${maxBurstLength}, and is cut`,
      );
    }
    return {
      maxConnections: this.#number('MaxConnections'),
      initialR2T,
      immediateData,
      maxBurstLength,
      firstBurstLength: Math.min(firstBurstLength, maxBurstLength),
      maxOutstandingR2T: this.#number('MaxOutstandingR2T'),
      defaultTime2Wait: this.#number('DefaultTime2Wait'),
      defaultTime2Retain: this.#number('DefaultTime2Retain'),
      errorRecoveryLevel: this.#number('ErrorRecoveryLevel'),
      dataPduInOrder: this.#boolean('DataPDUInOrder'),
      dataSequenceInOrder: this.#boolean('DataSequenceInOrder'),
      taskReporting: this.#inForce('TaskReporting') as TaskReporting,
      protocolLevel: this.#number('iSCSIProtocolLevel'),
      targetAlias: alias === null ? null : printable(alias),
    };
  }

  #digest(key: 'HeaderDigest' | 'DataDigest'): DigestName {
    const inForce = this.#inForce(key) as DigestName;
    const offered = this.#states.get(key)?.offered ?? 'None';
    if (!offered.split(',').includes(inForce)) {
      const option = key === 'HeaderDigest' ? '--header-digest' : '--data-digest';
      throw new UsageError(
        `${key} ${offered} is required, but the target does not provide it: switch it on there, ` +
          `or go without it by ${option} ${offered},None`,
        { code: 'ERR_DIGEST_REFUSED', exitCode: 5 },
      );
    }
    return inForce;
  }

  /**
   * RFC 7143 §6.2 (Text Mode Negotiation): results rest on what was exchanged only, so silence
   * leaves the default.
   */
  #warnUnanswered(): void {
    for (const [key, state] of this.#states) {
      const rule = KEY_ROWS.get(key)?.rule;
      if (state.fromTarget !== null || state.offered === null || !rule) continue;
      if (isDeclared(KEY_ROWS.get(key))) continue;
      if (isDecidedByProposal(rule, state.offered)) {
        state.inForce = state.offered;
      } else {
        this.#warnings.push(
          `the target did not answer ${key}=${state.offered}; ${this.#inForce(key)} holds`,
        );
      }
    }
  }

  #display(): NegotiatedKey[] {
    return [...this.#states].map(([key, state]) => ({
      key,
      offered: state.offered,
      declaredByTarget: state.fromTarget === null ? null : printable(state.fromTarget),
      inForce: printable(this.#shownInForce(key, state)),
    }));
  }

  /** What only we declare holds as we said it. */
  #shownInForce(key: string, state: KeyState): string {
    const isText = KEY_ROWS.get(key)?.rule.kind === 'declaredText';
    return isText ? (state.fromTarget ?? state.offered ?? '') : this.#inForce(key);
  }

  #inForce(key: string): string {
    return this.#states.get(key)?.inForce ?? KEY_ROWS.get(key)?.defaultValue ?? '';
  }

  #number(key: string): number {
    return Number(this.#inForce(key));
  }

  #boolean(key: string): boolean {
    return this.#inForce(key) === 'Yes';
  }

  #state(key: string): KeyState {
    let state = this.#states.get(key);
    if (!state) {
      state = { offered: null, fromTarget: null, inForce: null };
      this.#states.set(key, state);
    }
    return state;
  }
}
