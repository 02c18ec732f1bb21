import {
  LinkError,
  LoginRefusedError,
  type ProductError,
  ProtocolError,
} from '../../base/errors.js';
import type { ChapAlgorithm } from '../login/chap.js';
import type { LoginMachine } from '../login/login.js';
import type { QuirkLog } from '../quirks/quirks.js';
import type { SessionConfig } from './session-config.js';
import { TargetSpellings } from './target-spellings.js';

type Login = SessionConfig['login'];
type DigestKey = 'headerDigest' | 'dataDigest';

/** A guess at what the target cannot do, tried once and kept when the login with it succeeds. */
type Guess = 'new-keys' | 'chap-unwanted';

const GUESSES: Readonly<Record<Guess, string>> = {
  'new-keys': 'the target ended the login at keys of RFC 7143, which are not offered any more',
  'chap-unwanted': 'the target chose CHAP and has no account for it; it takes a login without',
};

/** What a failed attempt means: another way is tried at once, or its error is the session's. */
export type AttemptVerdict =
  | { readonly type: 'tryAgain'; readonly warning: string | null }
  | { readonly type: 'failed'; readonly error: ProductError };

/**
 * Other legal ways to log in, for a target that cannot do the usual one: each is tried once, and
 * what worked is kept for the session.
 */
export class LoginFallbacks {
  readonly #login: Login;
  readonly #quirks: QuirkLog;
  readonly #spellings: TargetSpellings;
  #algorithms: readonly ChapAlgorithm[];
  readonly #digests = new Set<DigestKey>();
  readonly #kept = new Set<Guess>();
  /** Guesses that did not help, so far as a login has tried them. */
  readonly #wrong = new Set<Guess>();
  /** The guess of the attempt under way, and why it was made. */
  #trying: { readonly guess: Guess; readonly because: ProductError } | null = null;

  constructor(login: Login, quirks: QuirkLog) {
    this.#login = login;
    this.#quirks = quirks;
    this.#spellings = new TargetSpellings(login.targetName);
    this.#algorithms = login.chap?.algorithms ?? [];
  }

  /** What the next login offers. */
  get login(): Login {
    const { chap, offer, targetName: _given, ...rest } = this.#login;
    const targetName = this.#spellings.current;
    const { taskReporting, protocolLevel, ...old } = offer;
    const digests = Object.fromEntries([...this.#digests].map((key) => [key, ['CRC32C', 'None']]));
    return {
      ...rest,
      ...(targetName === undefined ? {} : { targetName }),
      ...(chap === undefined || this.#uses('chap-unwanted')
        ? {}
        : { chap: { ...chap, algorithms: this.#algorithms } }),
      offer: { ...(this.#uses('new-keys') ? old : offer), ...digests },
    };
  }

  /** The login of the last attempt succeeded. Returns a warning, or null. */
  succeeded(): string | null {
    if (this.#trying !== null) {
      const { guess } = this.#trying;
      this.#trying = null;
      this.#kept.add(guess);
      this.#quirks.met(guess, GUESSES[guess]);
    }
    return this.#spellings.succeeded();
  }

  /** The attempt with `machine` failed. */
  failed(reason: ProductError, machine: LoginMachine | null): AttemptVerdict {
    const error = this.#spellings.failed(reason);
    if (error === null) return { type: 'tryAgain', warning: null };
    const before = this.#trying;
    if (before !== null) {
      this.#trying = null;
      // A link that is lost says nothing about the guess; the next attempt begins as usual.
      if (!(error instanceof LinkError)) this.#wrong.add(before.guess);
      return { type: 'failed', error: before.because };
    }
    const warning = this.#otherAlgorithm(error, machine);
    if (warning !== null) return { type: 'tryAgain', warning };
    if (this.#withDigests(error)) return { type: 'tryAgain', warning: null };
    const guess = machine === null ? null : this.#guess(error, machine);
    if (guess === null) return { type: 'failed', error };
    this.#trying = { guess, because: error };
    return { type: 'tryAgain', warning: null };
  }

  #uses(guess: Guess): boolean {
    return this.#kept.has(guess) || this.#trying?.guess === guess;
  }

  /** Other CHAP algorithms of the operator, after a refusal that they may avoid. */
  #otherAlgorithm(error: ProductError, machine: LoginMachine | null): string | null {
    if (!(error instanceof LoginRefusedError) || error.code !== 'ERR_CHAP_ALGORITHM') return null;
    const refused = machine?.chapAlgorithm ?? null;
    const left =
      refused === null
        ? this.#algorithms.filter((name) => name === 'MD5')
        : this.#algorithms.filter((name) => name !== refused);
    if (left.length === 0 || left.length === this.#algorithms.length) return null;
    const what = refused === null ? this.#algorithms.join(', ') : refused;
    this.#algorithms = left;
    return `the target cannot do CHAP with ${what}; trying ${left.join(', ')}`;
  }

  /** A target that refuses to go without digests gets them: they cost time and harm nothing. */
  #withDigests(error: ProductError): boolean {
    if (!(error instanceof ProtocolError) || error.rule !== 'digest-none-refused') return false;
    const key = error.message.includes('HeaderDigest') ? 'headerDigest' : 'dataDigest';
    if (this.#digests.has(key)) return false;
    this.#digests.add(key);
    this.#quirks.met('digest-none-refused', `${error.message}, so CRC32C is offered too`);
    return true;
  }

  #guess(error: ProductError, machine: LoginMachine): Guess | null {
    const { chap, offer } = this.#login;
    const hasNewKeys = offer.taskReporting !== undefined || offer.protocolLevel !== undefined;
    if (hasNewKeys && this.#mayTry('new-keys') && machine.isOfferUnanswered) {
      if (isEndOfLink(error) || refusalIn(error, UNSPECIFIC)) return 'new-keys';
    }
    // A target that has to prove itself must not get away without.
    const isOneWay = chap !== undefined && chap.target === undefined;
    if (isOneWay && this.#mayTry('chap-unwanted') && machine.isAuthenticating) {
      if (refusalIn(error, UNAUTHENTICATED)) return 'chap-unwanted';
    }
    return null;
  }

  #mayTry(guess: Guess): boolean {
    return !this.#kept.has(guess) && !this.#wrong.has(guess);
  }
}

/** RFC 7143 §11.13.5 (Status-Class and Status-Detail), class 2: no reason, or a wrong request. */
const UNSPECIFIC: readonly number[] = [0x00, 0x0b];
/** The same, and authentication failure. */
const UNAUTHENTICATED: readonly number[] = [0x00, 0x01];

function refusalIn(error: ProductError, details: readonly number[]): boolean {
  if (!(error instanceof LoginRefusedError)) return false;
  return error.statusClass === 2 && details.includes(error.statusDetail);
}

/** The target closed the connection; one that only does not answer may be on its way back. */
function isEndOfLink(error: ProductError): boolean {
  return error instanceof LinkError && error.errno !== 'ETIMEDOUT';
}
