import {
  CHAP_HASHES,
  type ChapHash,
  chooseHash,
  parseBinary,
  sameBytes,
  targetChapResponse,
} from './chap.js';
import { LOGIN_STATUS, LoginEnd } from './login-status.js';
import type { ChapSettings } from './settings.js';
import type { KeyPair } from './text-keys.js';

/** Bytes of a challenge; at least as long as the longest hash. */
const CHALLENGE_BYTES = 32;

type SecurityState =
  | { readonly kind: 'start' }
  | { readonly kind: 'method-chosen' }
  | {
      readonly kind: 'challenged';
      readonly hash: ChapHash;
      readonly identifier: number;
      readonly challenge: Buffer;
    }
  | { readonly kind: 'proven' };

/**
 * The target's side of AuthMethod=None and of
 * RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)).
 */
export class SecurityPhase {
  readonly #chap: ChapSettings | undefined;
  readonly #challenge: (length: number) => Buffer;
  #state: SecurityState;

  constructor(chap: ChapSettings | undefined, challenge: (length: number) => Buffer) {
    this.#chap = chap;
    this.#challenge = challenge;
    this.#state = { kind: 'start' };
  }

  /** Whether the initiator may leave the security stage. */
  get isDone(): boolean {
    return this.#chap === undefined || this.#state.kind === 'proven';
  }

  /** @throws LoginEnd when authentication fails. */
  answer(keys: ReadonlyMap<string, string>): KeyPair[] {
    const method = keys.get('AuthMethod');
    if (method !== undefined) return this.#chooseMethod(method);
    const algorithms = keys.get('CHAP_A');
    if (algorithms !== undefined) return this.#sendChallenge(algorithms);
    if (keys.has('CHAP_R') || keys.has('CHAP_N')) return this.#verify(keys);
    return [];
  }

  #chooseMethod(list: string): KeyPair[] {
    const offered = list.split(',');
    const method = this.#chap === undefined ? 'None' : 'CHAP';
    if (!offered.includes(method)) throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    this.#state = { kind: 'method-chosen' };
    return [['AuthMethod', method]];
  }

  #sendChallenge(list: string): KeyPair[] {
    if (this.#chap === undefined || this.#state.kind !== 'method-chosen') {
      throw new LoginEnd(LOGIN_STATUS.initiatorError);
    }
    const hash = chooseHash(list, this.#chap.algorithms ?? CHAP_HASHES);
    if (hash === null) throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    const [identifier = 0] = this.#challenge(1);
    const challenge = this.#challenge(CHALLENGE_BYTES);
    this.#state = { kind: 'challenged', hash, identifier, challenge };
    return [
      ['CHAP_A', String(hash)],
      ['CHAP_I', String(identifier)],
      ['CHAP_C', `0x${challenge.toString('hex')}`],
    ];
  }

  #verify(keys: ReadonlyMap<string, string>): KeyPair[] {
    const state = this.#state;
    const chap = this.#chap;
    if (chap === undefined || state.kind !== 'challenged') {
      throw new LoginEnd(LOGIN_STATUS.initiatorError);
    }
    const given = parseBinary(keys.get('CHAP_R') ?? '');
    const expected = targetChapResponse(state.hash, { ...state, secret: chap.secret });
    if (keys.get('CHAP_N') !== chap.user || given === null || !sameBytes(given, expected)) {
      throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    }
    this.#state = { kind: 'proven' };
    return this.#proveSelf(keys, { hash: state.hash, own: state.challenge });
  }

  #proveSelf(
    keys: ReadonlyMap<string, string>,
    context: { readonly hash: ChapHash; readonly own: Buffer },
  ): KeyPair[] {
    const identifier = keys.get('CHAP_I');
    const challenge = parseBinary(keys.get('CHAP_C') ?? '');
    if (identifier === undefined && !keys.has('CHAP_C')) return [];
    const mutual = this.#chap?.mutual;
    const number = Number(identifier);
    if (mutual === undefined || challenge === null || !(number >= 0 && number <= 255)) {
      throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    }
    // A challenge sent back to its maker would have the maker prove itself to itself.
    if (sameBytes(challenge, context.own)) throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    const proof = targetChapResponse(context.hash, {
      identifier: number,
      secret: mutual.secret,
      challenge,
    });
    return [
      ['CHAP_N', mutual.user],
      ['CHAP_R', `0x${proof.toString('hex')}`],
    ];
  }
}
