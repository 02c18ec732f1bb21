import { LoginRefusedError, type ProductError } from '../base/errors.js';

/** Reasons told apart; a target that invents ever new ones is not followed. */
const REASONS_MAX = 64;

export type LoginRefusal = {
  readonly statusClass: number;
  readonly statusDetail: number;
  readonly explanation: string;
};

type AttemptListener = {
  /** The target answered with a status. */
  readonly refused: (refusal: LoginRefusal) => void;
  /** It could not be reached, or broke a rule. */
  readonly failed: (message: string) => void;
};

/**
 * Tells why logins fail without flooding: at once when a reason is new, then each time its number
 * has doubled. Reasons are counted apart, for the portals of a target may take turns with theirs.
 */
export class AttemptReporter {
  readonly #tell: AttemptListener;
  readonly #counts = new Map<string, number>();

  constructor(tell: AttemptListener) {
    this.#tell = tell;
  }

  failed(error: ProductError): void {
    const refusal = error instanceof LoginRefusedError ? error : null;
    const status = refusal === null ? '' : `${refusal.statusClass} ${refusal.statusDetail}`;
    const times = this.#timesToTell(`${status} ${error.message}`);
    if (times === null) return;
    if (refusal === null) {
      this.#tell.failed(`a login attempt failed: ${error.message}${times}`);
    } else {
      const { statusClass, statusDetail, message } = refusal;
      this.#tell.refused({ statusClass, statusDetail, explanation: `${message}${times}` });
    }
  }

  succeeded(): void {
    this.#counts.clear();
  }

  /** Counts a reason; null when it is not to be reported again yet. */
  #timesToTell(reason: string): string | null {
    const known = this.#counts.get(reason);
    if (known === undefined && this.#counts.size >= REASONS_MAX) return null;
    const count = (known ?? 0) + 1;
    this.#counts.set(reason, count);
    const isPowerOfTwo = (count & (count - 1)) === 0;
    if (!isPowerOfTwo) return null;
    return count === 1 ? '' : ` (${count} times)`;
  }
}
