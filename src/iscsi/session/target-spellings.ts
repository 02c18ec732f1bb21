import { LoginRefusedError, type ProductError } from '../../base/errors.js';
import { normalIscsiName } from '../login/target-name.js';
import { quoted } from '../pdu/text.js';

/**
 * The name of the target as it was given, and its other spellings. Targets compare names byte for
 * byte and have them as they were once typed there, so what was given here is sent first; if it
 * is not found, the normal form is tried (RFC 7143 §4.2.7.2 (iSCSI Name Encoding)), and of a name
 * in hexadecimal digits the capital ones that some targets make of it (illumos). The spelling that
 * a target knows is kept for the session.
 */
export class TargetSpellings {
  readonly #names: readonly string[];
  #at = 0;
  /** Why the name as it was given is not the target's. */
  #notFound: ProductError | null = null;
  #isTold = false;

  constructor(given: string | undefined) {
    this.#names = given === undefined ? [] : spellingsOf(given);
  }

  /** What the next login sends; undefined in a discovery session. */
  get current(): string | undefined {
    return this.#names[this.#at];
  }

  /**
   * A login with the current spelling failed. Null: another spelling is tried at once; else the
   * error to tell.
   */
  failed(error: ProductError): ProductError | null {
    if (!isNotFound(error)) return error;
    this.#notFound ??= error;
    if (this.#at + 1 < this.#names.length) {
      this.#at += 1;
      return null;
    }
    const first = this.#notFound;
    this.#at = 0;
    this.#notFound = null;
    return first;
  }

  /** The login succeeded. Returns a warning, once, if it did so with another spelling. */
  succeeded(): string | null {
    this.#notFound = null;
    const [given, current] = [this.#names[0], this.current];
    if (this.#isTold || given === undefined || current === undefined || this.#at === 0) return null;
    this.#isTold = true;
    return `the target does not know the name ${quoted(given)}; it is ${quoted(current)} there`;
  }
}

function spellingsOf(given: string): readonly string[] {
  const normal = normalIscsiName(given);
  const isHexadecimal = normal.startsWith('eui.') || normal.startsWith('naa.');
  const capitals = isHexadecimal ? [normal.slice(0, 4) + normal.slice(4).toUpperCase()] : [];
  return [...new Set([given, normal, ...capitals])];
}

/** RFC 7143 §11.13.5 (Status-Class and Status-Detail), 0203: Not Found. */
function isNotFound(error: ProductError): boolean {
  if (!(error instanceof LoginRefusedError)) return false;
  return error.statusClass === 2 && error.statusDetail === 3;
}
