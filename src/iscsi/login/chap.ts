import { createHash, timingSafeEqual } from 'node:crypto';
import { invariant, ProductError, UsageError } from '../../base/errors.js';
import { parseBinaryValue, parseNumericalValue, quoted, type TextPair } from '../pdu/text.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';

/**
 * CHAP from the initiator's end: RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol
 * (CHAP)) and §9.2.1 (CHAP Considerations). No secret, challenge or response is in a message.
 */

export type ChapAlgorithm = 'MD5' | 'SHA1' | 'SHA256' | 'SHA3-256';

export type ChapOptions = {
  /** CHAP_N, and the secret's bytes, by which the target knows us. */
  readonly user: string;
  readonly secret: Uint8Array;
  /** Given when the target has to authenticate itself too; `user` is compared when given. */
  readonly target?: { readonly user?: string; readonly secret: Uint8Array };
  /** In order of preference. */
  readonly algorithms: readonly ChapAlgorithm[];
  /** Shared by the logins of one initiator; without it only this login is checked. */
  readonly memory?: ChallengeMemory;
};

/** Why an authentication ended, for what is not the target's own refusal. */
export type AuthenticationFault =
  | 'targetNotAuthentic'
  | 'targetNotAuthenticated'
  | 'targetUser'
  | 'sameSecret'
  | 'reflectedChallenge'
  | 'reusedChallenge'
  | 'noCommonMethod';

/** Authentication failed at our end: the target is not who it should be, or breaks CHAP. */
export class AuthenticationError extends ProductError {
  readonly fault: AuthenticationFault;

  constructor(fault: AuthenticationFault, message: string, options?: ErrorOptions) {
    super('ERR_AUTHENTICATION', message, options);
    this.fault = fault;
  }
}

type AlgorithmFacts = {
  /** CHAP_A: IANA's "PPP Authentication Algorithms". */
  readonly number: number;
  /** The hash's name in node:crypto. */
  readonly hash: string;
  readonly digestBytes: number;
};

const ALGORITHMS: Readonly<Record<ChapAlgorithm, AlgorithmFacts>> = {
  MD5: { number: 5, hash: 'md5', digestBytes: 16 },
  SHA1: { number: 6, hash: 'sha1', digestBytes: 20 },
  SHA256: { number: 7, hash: 'sha256', digestBytes: 32 },
  'SHA3-256': { number: 8, hash: 'sha3-256', digestBytes: 32 },
};

/**
 * RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)): the binary length of a
 * challenge or response.
 */
const BINARY_BYTES_MAX = 1024;

/** RFC 7143 §9.2.1 (CHAP Considerations): a secret should have at least 96 bits. */
const SECRET_BYTES_MIN = 12;

/** RFC 7143 §6.1 (Text Format): a simple-value. */
const NAME_BYTES_MAX = 255;

/** Challenges remembered in each direction. */
const CHALLENGES_MAX = 1024;

/** The response of RFC 1994 §4.1 (Challenge and Response): hash of identifier, secret, challenge */
export function chapResponse(
  algorithm: ChapAlgorithm,
  input: {
    readonly identifier: number;
    readonly secret: Uint8Array;
    readonly challenge: Uint8Array;
  },
): Buffer {
  return createHash(ALGORITHMS[algorithm].hash)
    .update(Buffer.of(input.identifier))
    .update(input.secret)
    .update(input.challenge)
    .digest();
}

/**
 * Challenges of both directions over many connections. One of ours that comes back from a target
 * on any connection is a reflection (RFC 7143 §9.2.1 (CHAP Considerations), the "Rogue" example).
 */
export class ChallengeMemory {
  readonly #ours = new Set<string>();
  readonly #theirs = new Set<string>();

  rememberOurs(challenge: Buffer): void {
    keep(this.#ours, challenge);
  }

  /** Throws AuthenticationError for a challenge that must not be answered. */
  acceptTheirs(challenge: Buffer): void {
    const name = challenge.toString('hex');
    if (this.#ours.has(name)) {
      throw new AuthenticationError(
        'reflectedChallenge',
        'the target sent back a CHAP challenge of ours; something stands between us and it',
      );
    }
    if (this.#theirs.has(name)) {
      throw new AuthenticationError('reusedChallenge', 'the target uses a CHAP challenge again');
    }
    keep(this.#theirs, challenge);
  }
}

function keep(set: Set<string>, challenge: Buffer): void {
  set.add(challenge.toString('hex'));
  const [oldest] = set;
  if (set.size > CHALLENGES_MAX && oldest !== undefined) set.delete(oldest);
}

/**
 * The exchange after AuthMethod=CHAP: `firstPairs`, then `challenged`, then `finished` with the
 * CHAP keys of the target's answers. Used once. The constructor throws UsageError for options
 * that RFC 7143 §9.2.1 (CHAP Considerations) forbids.
 */
export class ChapExchange {
  readonly warnings: string[] = [];
  readonly #options: ChapOptions;
  readonly #memory: ChallengeMemory;
  readonly #quirks: QuirkLog;
  readonly #randomBytes: (count: number) => Buffer;
  /** What the target chose. */
  algorithm: ChapAlgorithm | null = null;
  #sent: { identifier: number; challenge: Buffer } | null = null;

  constructor(options: ChapOptions, randomBytes: (count: number) => Buffer, quirks: QuirkLog) {
    this.#quirks = quirks;
    this.#options = options;
    this.#memory = options.memory ?? new ChallengeMemory();
    this.#randomBytes = randomBytes;
    this.#checkOptions();
  }

  /** True when the target has to authenticate itself. */
  get isMutual(): boolean {
    return this.#options.target !== undefined;
  }

  /** CHAP_A with our algorithms. */
  firstPairs(): TextPair[] {
    const numbers = this.#options.algorithms.map((name) => ALGORITHMS[name].number);
    return [['CHAP_A', numbers.join(',')]];
  }

  /** Takes CHAP_A, CHAP_I and CHAP_C; returns our response, and our challenge when mutual. */
  challenged(keys: ReadonlyMap<string, string>): TextPair[] {
    this.#checkKeys(keys, ['CHAP_A', 'CHAP_I', 'CHAP_C']);
    const algorithm = this.#chosenAlgorithm(keys.get('CHAP_A') ?? '');
    const identifier = parseNumericalValue(keys.get('CHAP_I') ?? '');
    if (identifier === null || identifier > 255) {
      throw brokenRule('chap-identifier', 'CHAP_I is not a number from 0 to 255');
    }
    const challenge = binary(keys, 'CHAP_C');
    this.#memory.acceptTheirs(challenge);
    const { user, secret } = this.#options;
    this.algorithm = algorithm;
    const response = chapResponse(algorithm, { identifier, secret, challenge });
    const pairs: TextPair[] = [
      ['CHAP_N', user],
      ['CHAP_R', hex(response)],
    ];
    if (!this.isMutual) return pairs;
    const ours = this.#ownChallenge(algorithm, { identifier, challenge });
    this.#sent = ours;
    return [...pairs, ['CHAP_I', `${ours.identifier}`], ['CHAP_C', hex(ours.challenge)]];
  }

  /** Takes CHAP_N and CHAP_R of a mutual exchange. Throws AuthenticationError when they fail. */
  finished(keys: ReadonlyMap<string, string>): void {
    if (!this.isMutual) {
      this.#checkKeys(keys, []);
      return;
    }
    if (!keys.has('CHAP_N') && !keys.has('CHAP_R')) {
      this.#checkKeys(keys, []);
      throw new AuthenticationError(
        'targetNotAuthenticated',
        'the target did not authenticate itself, which mutual CHAP requires',
      );
    }
    this.#checkKeys(keys, ['CHAP_N', 'CHAP_R']);
    this.#checkTarget(keys.get('CHAP_N') ?? '', binary(keys, 'CHAP_R'));
  }

  /**
   * RFC 7143 §9.2 (In-Band Initiator-Target Authentication): exactly the keys of this step. Beside
   * them the method may be named again, and a target may prove itself to one that has not asked:
   * nothing is computed from either.
   */
  #checkKeys(keys: ReadonlyMap<string, string>, expected: readonly string[]): void {
    const missing = expected.filter((key) => !keys.has(key));
    const extra = [...keys.keys()].filter((key) => !expected.includes(key));
    const isHarmless = (key: string) =>
      (key === 'AuthMethod' && keys.get(key) === 'CHAP') ||
      (!this.isMutual && (key === 'CHAP_N' || key === 'CHAP_R'));
    const words = [
      ...missing.map((key) => `without ${key}`),
      ...extra.map((key) => `with ${quoted(key)}`),
    ];
    if (words.length === 0) return;
    if (missing.length > 0 || !extra.every(isHarmless)) {
      throw brokenRule('chap-keys', `CHAP step ${words.join(', ')}`);
    }
    this.#quirks.met('chap-extra-key', `the target makes a CHAP step ${words.join(', ')}`);
  }

  #checkTarget(user: string, response: Buffer): void {
    const { target, secret } = this.#options;
    const { algorithm } = this;
    invariant(target && algorithm && this.#sent, 'a CHAP answer before our challenge');
    const { identifier, challenge } = this.#sent;
    if (target.user !== undefined && user !== target.user) {
      throw new AuthenticationError(
        'targetUser',
        `the target calls itself ${quoted(user)}, but ${quoted(target.user)} is expected`,
      );
    }
    // RFC 7143 §9.2.1 (CHAP Considerations): what we would answer ourselves is a failure.
    if (isEqual(response, chapResponse(algorithm, { identifier, secret, challenge }))) {
      throw new AuthenticationError(
        'sameSecret',
        'the target answered with the secret of the other direction; each needs its own',
      );
    }
    const expected = chapResponse(algorithm, { identifier, secret: target.secret, challenge });
    if (!isEqual(response, expected)) {
      throw new AuthenticationError(
        'targetNotAuthentic',
        'the target does not know the secret it should authenticate itself with',
      );
    }
  }

  #chosenAlgorithm(text: string): ChapAlgorithm {
    if (text === 'Reject') {
      throw new AuthenticationError('noCommonMethod', 'the target rejects every CHAP algorithm');
    }
    const number = parseNumericalValue(text);
    const chosen = this.#options.algorithms.find((name) => ALGORITHMS[name].number === number);
    if (chosen === undefined) {
      throw brokenRule('chap-algorithm', `the target chose CHAP_A=${quoted(text)}, not offered`);
    }
    return chosen;
  }

  /** RFC 7143 §9.2.1 (CHAP Considerations): never the challenge of the other direction. */
  #ownChallenge(
    algorithm: ChapAlgorithm,
    theirs: { readonly identifier: number; readonly challenge: Buffer },
  ): { identifier: number; challenge: Buffer } {
    const random = this.#randomBytes(1 + ALGORITHMS[algorithm].digestBytes);
    const challenge = Buffer.from(random.subarray(1));
    invariant(!challenge.equals(theirs.challenge), 'the random source repeats a challenge');
    this.#memory.rememberOurs(challenge);
    const first = random[0] ?? 0;
    const identifier = first === theirs.identifier ? (first + 1) & 0xff : first;
    return { identifier, challenge };
  }

  #checkOptions(): void {
    const { user, secret, target, algorithms } = this.#options;
    if (algorithms.length === 0) {
      throw new UsageError('no CHAP algorithm is given', { code: 'ERR_CHAP_ALGORITHMS' });
    }
    // RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)): initiators offer MD5
    // always; an operator who leaves it out is obeyed.
    if (!algorithms.includes('MD5')) {
      this.warnings.push('CHAP without MD5 is refused by targets that know nothing else');
    }
    const nameBytes = Buffer.byteLength(user, 'utf8');
    if (nameBytes === 0 || nameBytes > NAME_BYTES_MAX || user.includes('\0')) {
      throw new UsageError(`the CHAP user must have 1 to ${NAME_BYTES_MAX} bytes, none of them 0`, {
        code: 'ERR_CHAP_USER',
      });
    }
    if (secret.length === 0 || target?.secret.length === 0) {
      throw new UsageError('a CHAP secret is empty', { code: 'ERR_CHAP_SECRET' });
    }
    // RFC 7143 §9.2.1 (CHAP Considerations): a secret of one direction must not be configured for
    // the other.
    if (target && isEqual(secret, target.secret)) {
      throw new UsageError('the CHAP secrets of both directions are the same', {
        code: 'ERR_CHAP_SAME_SECRET',
      });
    }
    this.#warnShort('CHAP secret of this initiator', secret);
    if (target) this.#warnShort('CHAP secret of the target', target.secret);
  }

  #warnShort(what: string, secret: Uint8Array): void {
    if (secret.length >= SECRET_BYTES_MIN) return;
    this.warnings.push(
      `the ${what} has fewer than ${SECRET_BYTES_MIN} bytes (96 bits) and can be guessed ` +
        'from one recorded login',
    );
  }
}

function binary(keys: ReadonlyMap<string, string>, key: string): Buffer {
  const bytes = parseBinaryValue(keys.get(key) ?? '', BINARY_BYTES_MAX);
  if (bytes) return bytes;
  throw brokenRule('chap-binary', `${key} is not 1 to ${BINARY_BYTES_MAX} bytes of hex or base64`);
}

function hex(bytes: Buffer): string {
  return `0x${bytes.toString('hex')}`;
}

function isEqual(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}
