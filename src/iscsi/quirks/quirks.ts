import { ProtocolError } from '../../base/errors.js';
import { CONNECTION_QUIRKS } from './connection-quirks.js';
import { LOGIN_QUIRKS } from './login-quirks.js';
import type { QuirkClass, QuirkRow } from './quirk-row.js';
import { TEXT_QUIRKS } from './text-quirks.js';

/** Every place that judges what a target sends has a row here. */
const QUIRKS = { ...LOGIN_QUIRKS, ...TEXT_QUIRKS, ...CONNECTION_QUIRKS };

type Rows = typeof QUIRKS;
type IdOf<Class extends QuirkClass> = {
  [Id in keyof Rows]: Rows[Id]['class'] extends Class ? Id : never;
}[keyof Rows];

/** Rows that can end a connection; one that waits ends it when nothing has come. */
export type BrokenRuleId = IdOf<'strict' | 'wait' | 'fallback'>;
/** Rows that a session can live with. */
export type QuirkId = IdOf<'tolerate' | 'wait' | 'fallback'>;

export const QUIRK_ROWS: Readonly<Record<BrokenRuleId | QuirkId, QuirkRow>> = QUIRKS;

/** Something a target does against RFC 7143 that its session lives with. */
export type TargetQuirk = {
  readonly quirk: QuirkId;
  /** Section of RFC 7143. */
  readonly section: string;
  /** What the target does and what is done about it, a clause with its own subject. */
  readonly what: string;
};

/** What the operator can do about a quirk, a whole sentence. */
export function nextStepOf(quirk: QuirkId): string {
  return QUIRK_ROWS[quirk].nextStep;
}

/**
 * The error that ends the connection because the target broke the rule of this row. A `section` of
 * its own is that of a text key, where one row is for many keys.
 */
export function brokenRule(
  rule: BrokenRuleId,
  message: string,
  options?: { readonly code?: string; readonly cause?: unknown; readonly section?: string },
): ProtocolError {
  const { nextStep } = QUIRK_ROWS[rule];
  const section = options?.section ?? QUIRK_ROWS[rule].section;
  return new ProtocolError(section, message, { ...options, rule, nextStep });
}

/**
 * What one target does against RFC 7143, over all connections of its session: each quirk is
 * reported once, when it is met for the first time.
 */
export class QuirkLog {
  readonly #met = new Map<QuirkId, TargetQuirk>();
  readonly #tell: (quirk: TargetQuirk) => void;

  /** `tell` only notes it for later: a machine that meets a quirk is in the middle of its work. */
  constructor(tell: (quirk: TargetQuirk) => void = () => undefined) {
    this.#tell = tell;
  }

  /** A `section` of its own is that of a text key, where one row is for many keys. */
  met(id: QuirkId, what: string, section: string = QUIRK_ROWS[id].section): void {
    if (this.#met.has(id)) return;
    const quirk = { quirk: id, section, what };
    this.#met.set(id, quirk);
    this.#tell(quirk);
  }

  /** All of them, in the order in which they were met. */
  get all(): readonly TargetQuirk[] {
    return [...this.#met.values()];
  }
}
