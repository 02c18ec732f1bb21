import { LoginRefusedError, type ProductError } from '../base/errors.js';
import type { EventBody } from './session-stack.js';

/**
 * Tells of failing login attempts without flooding: one event when the reason is new, then one each
 * time their number has doubled.
 */
export class AttemptReporter {
  readonly #emit: (event: EventBody) => void;
  #reason = '';
  #count = 0;

  constructor(emit: (event: EventBody) => void) {
    this.#emit = emit;
  }

  failed(error: ProductError): void {
    const reason = `${error.code} ${error.message}`;
    this.#count = reason === this.#reason ? this.#count + 1 : 1;
    this.#reason = reason;
    const isPowerOfTwo = (this.#count & (this.#count - 1)) === 0;
    if (!isPowerOfTwo || !(error instanceof LoginRefusedError)) return;
    const { statusClass, statusDetail } = error;
    const times = this.#count === 1 ? '' : ` (${this.#count} times)`;
    const explanation = `${error.message}${times}`;
    this.#emit({ event: 'loginRefused', statusClass, statusDetail, explanation });
  }

  succeeded(): void {
    this.#reason = '';
    this.#count = 0;
  }
}
