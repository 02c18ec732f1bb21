import { type ProductError, ProtocolError } from '../../base/errors.js';

/** Connections in a row after which a broken rule is no accident. */
const CONNECTIONS_MIN = 3;

/**
 * Connections in a row that ended because the target broke rules of the same section, without one
 * command answered in between: a new connection does not help against that.
 */
export class RuleStreak {
  #error: ProtocolError | null = null;
  connections = 0;

  /** The rule that keeps the session from getting on, null while it does or may. */
  get error(): ProtocolError | null {
    return this.connections >= CONNECTIONS_MIN ? this.#error : null;
  }

  /**
   * A connection has ended, `null` by a logout; `isUsed`: a command was answered on it. True when
   * the streak has become long enough just now.
   */
  connectionEnded(error: ProductError | null, isUsed: boolean): boolean {
    if (!(error instanceof ProtocolError)) {
      this.connections = 0;
      this.#error = null;
      return false;
    }
    const isSame = !isUsed && this.#error?.section === error.section;
    this.connections = isSame ? this.connections + 1 : 1;
    this.#error = error;
    return this.connections === CONNECTIONS_MIN;
  }
}
