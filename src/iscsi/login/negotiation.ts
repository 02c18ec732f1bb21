import { invariant, UsageError } from '../../base/errors.js';
import type { DigestName, SessionParameters, TaskReporting } from '../pdu/session-parameters.js';
import { printable, quoted, RESERVED_ANSWERS, type TextPair } from '../pdu/text.js';
import { brokenRule } from '../quirks/quirks.js';
import { isSecurityKey, KEY_ROWS, type KeyRow } from './negotiation-keys.js';
import { answerProposal, checkReply, isDecidedByProposal } from './negotiation-rules.js';

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

  /** `wanted`: what we would propose or declare per key, as `offeredPairs` gives it. */
  constructor(options: { readonly sessionType: SessionType; readonly wanted: TextPair[] }) {
    this.#sessionType = options.sessionType;
    this.#wanted = new Map(options.wanted);
  }

  /** Notes that `pairs` are sent, so that what comes back for them is a reply. */
  offer(pairs: readonly TextPair[]): void {
    for (const [key, value] of pairs) {
      const state = this.#state(key);
      invariant(state.offered === null, `${key} is offered twice in one login`);
      state.offered = value;
    }
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
      throw brokenRule('key-twice', `the target sent ${key} more than once during login`);
    }
    state.fromTarget = value;
    if (!row) return this.#unknownKey(key, value, context);
    if (row.rule.kind === 'declaredNumber' || row.rule.kind === 'declaredText') {
      this.#declared(key, value, row, state);
      return null;
    }
    if (state.offered !== null) {
      state.inForce = checkReply({ key, row, offered: state.offered, reply: value });
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
    // RFC 7143 §12 (iSCSI Security Text Keys and Authentication Methods): no others are allowed.
    if (context.stage === 'security' && row?.stage !== 'any') {
      throw brokenRule('key-in-security', `key ${quoted(key)} during the security negotiation`);
    }
    if (row?.stage === 'fullFeature') {
      throw brokenRule('key-in-login', `${key} during login`, { section: row.section });
    }
  }

  #declared(key: string, value: string, row: KeyRow, state: KeyState): void {
    if (RESERVED_ANSWERS.has(value)) {
      const answersLater = value === 'NotUnderstood' && row.later && state.offered !== null;
      if (answersLater) return;
      throw brokenRule(
        'declaration-answered',
        `the target answered the declaration of ${key} with ${value}`,
      );
    }
    if (row.senders === 'initiator') {
      throw brokenRule('key-of-initiators', `the target sent ${key}, which only initiators send`, {
        section: row.section,
      });
    }
    state.inForce = checkReply({ key, row, offered: '', reply: value });
  }

  #unknownKey(key: string, value: string, context: PairContext): string | null {
    this.#checkReserved(key, value);
    this.#warnings.push(`the target sent key ${quoted(key)}, which is not understood`);
    return context.transit ? null : this.#answered(key, 'NotUnderstood');
  }

  #proposed(key: string, value: string, row: KeyRow, context: PairContext): string | null {
    this.#checkReserved(key, value);
    const irrelevant = row.irrelevantInDiscovery && this.#sessionType === 'Discovery';
    if (context.transit) {
      // RFC 7143 §6.2.2 (Simple-Value Negotiations): a value that decides alone needs no answer.
      if (irrelevant || row.rule.kind === 'obsolete') {
        this.#warnings.push(`the target proposed ${key}, which is of no use, and got no answer`);
      } else if (isDecidedByProposal(row.rule, value)) {
        this.#state(key).inForce = value;
      } else {
        throw brokenRule(
          'proposal-unanswerable',
          `${key} needs an answer, but the T bit ends the stage`,
        );
      }
      return null;
    }
    const preferred = this.#wanted.get(key) ?? row.defaultValue;
    const answer = irrelevant ? 'Irrelevant' : answerProposal(row.rule, value, preferred);
    return this.#answered(key, answer);
  }

  /** RFC 7143 §6.2 (Text Mode Negotiation): the reserved answers cannot be proposed. */
  #checkReserved(key: string, value: string): void {
    if (RESERVED_ANSWERS.has(value)) {
      throw brokenRule(
        'reserved-proposed',
        `the target sent ${key}=${value}, and nothing was offered`,
      );
    }
  }

  /**
   * What holds at the end. `session` is given for a connection added to a session, whose
   * session-wide parameters stay as they are. Throws UsageError when a digest that was required
   * is refused, ProtocolError when the parameters contradict each other.
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
      throw brokenRule(
        'burst-order',
        `FirstBurstLength ${firstBurstLength} exceeds MaxBurstLength ${maxBurstLength}`,
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
      throw new UsageError(`${key} ${offered} is required, but the target does not provide it`, {
        code: 'ERR_DIGEST_REFUSED',
        exitCode: 5,
      });
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
      if (rule.kind === 'declaredNumber' || rule.kind === 'declaredText') continue;
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
