import type { ProtocolError } from '../../base/errors.js';
import { quoted, type TextPair } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import { AuthenticationError, type ChapAlgorithm, ChapExchange, type ChapOptions } from './chap.js';

/**
 * The security stage of a login as steps of keys: RFC 7143 §6.3.2 (iSCSI Security Negotiation)
 * and §12.1 (AuthMethod). The login machine decides which side speaks at a step.
 */

export type AuthMethod = 'None' | 'CHAP';

/** What goes out next, unless the target has ended the stage. */
type SecurityMove = { readonly pairs: TextPair[]; readonly transit: boolean };

type SecurityState =
  | { readonly type: 'methodsOffered' }
  | { readonly type: 'algorithmsSent'; readonly exchange: ChapExchange }
  | { readonly type: 'responseSent'; readonly exchange: ChapExchange }
  | { readonly type: 'settled'; readonly method: AuthMethod; readonly mutual: boolean };

/** RFC 7143 §6.3.2 (iSCSI Security Negotiation): the target chooses, and None is on offer. */
const SKIPPED =
  'the target has chosen a login without authentication, although CHAP was offered; a secret for ' +
  'the target (mutual CHAP) makes CHAP required';

const READY: SecurityMove = { pairs: [], transit: true };

export class SecurityNegotiation {
  readonly #exchange: ChapExchange | null;
  readonly #quirks: QuirkLog;
  /** The value of AuthMethod we offer. */
  readonly offered: string;
  #state: SecurityState = { type: 'methodsOffered' };

  /** Throws UsageError for CHAP options that RFC 7143 §9.2.1 (CHAP Considerations) forbids. */
  constructor(
    chap: ChapOptions | undefined,
    randomBytes: (count: number) => Buffer,
    quirks: QuirkLog,
  ) {
    this.#quirks = quirks;
    this.#exchange = chap ? new ChapExchange(chap, randomBytes, quirks) : null;
    // A target that has to prove itself must not get away with no authentication at all.
    this.offered = this.#exchange ? (this.#exchange.isMutual ? 'CHAP' : 'CHAP,None') : 'None';
  }

  get warnings(): readonly string[] {
    if (this.#exchange === null) return [];
    const isSkipped = this.outcome?.method === 'None';
    return isSkipped ? [...this.#exchange.warnings, SKIPPED] : this.#exchange.warnings;
  }

  /** The CHAP algorithm the target chose, null before that and without CHAP. */
  get chapAlgorithm(): ChapAlgorithm | null {
    return this.#exchange?.algorithm ?? null;
  }

  /** CHAP has begun and has not ended. */
  get isAuthenticating(): boolean {
    return this.#state.type === 'algorithmsSent' || this.#state.type === 'responseSent';
  }

  /** How the stage ended. */
  get outcome(): { readonly method: AuthMethod; readonly mutual: boolean } | null {
    return this.#state.type === 'settled' ? this.#state : null;
  }

  /**
   * What a refusal with Status-Class 2 at this point most likely means, null when there is
   * nothing to add to the words for `statusDetail`.
   */
  refusalHint(statusDetail: number): string | null {
    switch (this.#state.type) {
      case 'algorithmsSent':
        return 'it may know none of the CHAP algorithms offered, so offer MD5';
      case 'responseSent':
        // tgt and the iSCSI Enterprise Target take CHAP_A=7, which is SHA-256, for SHA-1.
        return statusDetail === 0 && this.#state.exchange.algorithm === 'SHA256'
          ? 'it may take CHAP algorithm 7, SHA256, for another, so offer MD5 before SHA256'
          : null;
      case 'methodsOffered':
      case 'settled':
        return null;
    }
  }

  /** With nothing but None on offer the stage can end at once. */
  start(): SecurityMove {
    return { pairs: [['AuthMethod', this.offered]], transit: this.#exchange === null };
  }

  /**
   * Takes the security keys of one answer. Throws ProtocolError for keys that do not belong to
   * the step (RFC 7143 §9.2 (In-Band Initiator-Target Authentication)), AuthenticationError when
   * the target fails.
   */
  answered(keys: ReadonlyMap<string, string>): SecurityMove {
    const state = this.#state;
    switch (state.type) {
      case 'methodsOffered':
        return this.#methodChosen(keys);
      case 'algorithmsSent': {
        const pairs = state.exchange.challenged(keys);
        this.#state = { type: 'responseSent', exchange: state.exchange };
        return { pairs, transit: true };
      }
      case 'responseSent':
        state.exchange.finished(keys);
        this.#state = { type: 'settled', method: 'CHAP', mutual: state.exchange.isMutual };
        return READY;
      case 'settled': {
        const key = [...keys.keys()].find((name) => keys.get(name) !== this.#settledAs(name));
        if (key === undefined) {
          if (keys.size > 0)
            this.#quirks.met('security-key-repeated', 'the target sent AuthMethod again');
          return READY;
        }
        throw brokenRule(
          'security-key-late',
          `security key ${quoted(key)} after the authentication`,
        );
      }
    }
  }

  /** What holds for a key after the authentication; undefined for one that is settled nowhere. */
  #settledAs(key: string): string | undefined {
    return key === 'AuthMethod' ? this.outcome?.method : undefined;
  }

  #methodChosen(keys: ReadonlyMap<string, string>): SecurityMove {
    const method = keys.get('AuthMethod');
    const others = [...keys.keys()].filter((key) => key !== 'AuthMethod');
    if (others.length > 0) {
      throw brokenRule(
        'security-key-early',
        `key ${quoted(others[0] ?? '')} before its method is chosen`,
      );
    }
    if (method === 'Reject') {
      throw new AuthenticationError(
        'noCommonMethod',
        `the target accepts none of the authentication methods ${this.offered}`,
      );
    }
    // With None alone on offer silence has the same result, and some targets are silent.
    if (method === 'None' || (method === undefined && this.offered === 'None')) {
      if (!this.offered.split(',').includes('None')) throw this.#notOffered('None');
      this.#state = { type: 'settled', method: 'None', mutual: false };
      return READY;
    }
    if (method === 'CHAP' && this.#exchange) {
      this.#state = { type: 'algorithmsSent', exchange: this.#exchange };
      return { pairs: this.#exchange.firstPairs(), transit: false };
    }
    if (method === undefined) {
      throw brokenRule('auth-method-unanswered', 'the target does not answer AuthMethod');
    }
    throw this.#notOffered(method);
  }

  #notOffered(method: string): ProtocolError {
    return brokenRule(
      'auth-method-choice',
      `the target chose AuthMethod=${quoted(method)}, but ${this.offered} was offered`,
    );
  }
}
