import { LoginRefusedError, type ProductError } from '../base/errors.js';

/** Reasons told apart; a target that invents ever new ones is not followed. */
const REASONS_MAX = 64;

export type LoginRefusal = {
  readonly statusClass: number;
  readonly statusDetail: number;
  readonly explanation: string;
};

/**
 * Tells of refused logins without flooding: at once when a reason is new, then each time its
 * number has doubled. Reasons are counted apart, for the portals of a target may take turns with
 * theirs.
 */
export class AttemptReporter {
  readonly #tell: (refusal: LoginRefusal) => void;
  readonly #counts = new Map<string, number>();

  constructor(tell: (refusal: LoginRefusal) => void) {
    this.#tell = tell;
  }

  failed(error: ProductError): void {
    if (!(error instanceof LoginRefusedError)) return;
    const { statusClass, statusDetail } = error;
    const reason = `${statusClass} ${statusDetail} ${error.message}`;
    const known = this.#counts.get(reason);
    if (known === undefined && this.#counts.size >= REASONS_MAX) return;
    const count = (known ?? 0) + 1;
    this.#counts.set(reason, count);
    const isPowerOfTwo = (count & (count - 1)) === 0;
    if (!isPowerOfTwo) return;
    const times = count === 1 ? '' : ` (${count} times)`;
    this.#tell({ statusClass, statusDetail, explanation: `${error.message}${times}` });
  }

  succeeded(): void {
    this.#counts.clear();
  }
}
