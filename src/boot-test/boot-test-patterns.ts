import { createContext, Script } from 'node:vm';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';

const PATTERN_LENGTH_MAX = 4096;
/** One look at some lines of a console takes microseconds, unless the pattern explodes. */
const LOOK_MS_MAX = 2000;

/** The prompt that getty(8) shows when a system is up. */
export const EXPECT_DEFAULT = 'login:';

/** What firmware, boot loaders, kernels and initramfs say when they cannot go on, a row each. */
export const FAIL_DEFAULT = [
  'Kernel panic - not syncing',
  // SeaBIOS and OVMF.
  'Boot failed:|No bootable device',
  'BdsDxe: No bootable option|^Shell> $',
  // What master boot records say.
  '(?:Missing|Error loading) operating system|Operating [Ss]ystem not found',
  // GRUB's prompts.
  '^grub(?: rescue)?> ',
  // initramfs-tools, dracut and systemd.
  '^\\(initramfs\\) |Entering emergency mode|You are in emergency mode',
].join('|');

/** A regular expression of a flag; throws UsageError that says what is wrong with it. */
export function compilePattern(flag: string, text: string): RegExp {
  if (text === '') throw new UsageError(`${flag} is empty: it would match anything.`);
  if (text.length > PATTERN_LENGTH_MAX) {
    throw new UsageError(`${flag} is longer than ${PATTERN_LENGTH_MAX} characters.`);
  }
  try {
    return new RegExp(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.replace(/^.*: /s, '') : String(cause);
    throw new UsageError(`${flag} '${text}' is no regular expression of JavaScript: ${why}.`, {
      cause,
    });
  }
}

type PatternHit = { readonly kind: 'expected' | 'failed'; readonly line: string };

/** Runs in an interruptible way, which nothing else in the language can. */
const FIRST_HIT = new Script(`
  (() => {
    for (const [index, line] of lines.entries()) {
      if (expect.test(line)) return { index, kind: 'expected' };
      if (fail.test(line)) return { index, kind: 'failed' };
    }
    return null;
  })()
`);

/**
 * What a boot is judged by. A pattern is searched in one line of the console at a time, and a
 * look is ended after two seconds: one that backtracks for ever must not stop the data path, which
 * is in this thread.
 */
export class BootPatterns {
  readonly #context: { lines: readonly string[]; readonly expect: RegExp; readonly fail: RegExp };

  constructor(patterns: { readonly expect: RegExp; readonly fail: RegExp }) {
    this.#context = { lines: [], expect: patterns.expect, fail: patterns.fail };
    createContext(this.#context);
  }

  /**
   * The first line that decides; within a line what is expected wins. Throws UsageError when a
   * pattern takes too long.
   */
  look(lines: readonly string[]): PatternHit | null {
    if (lines.length === 0) return null;
    this.#context.lines = lines;
    const hit: { index: number; kind: PatternHit['kind'] } | null = this.#run();
    if (hit === null) return null;
    return { kind: hit.kind, line: lines[hit.index] ?? '' };
  }

  #run(): { index: number; kind: PatternHit['kind'] } | null {
    try {
      return FIRST_HIT.runInContext(this.#context, { timeout: LOOK_MS_MAX });
    } catch (cause) {
      const seconds = LOOK_MS_MAX / 1000;
      throw new UsageError(
        `--expect or --fail-regex takes more than ${seconds} s for some lines of the console: ` +
          'avoid repetitions within repetitions, such as (a+)+.',
        { cause, code: 'ERR_PATTERN_SLOW', exitCode: EXIT_CODES.invalidUse.code },
      );
    }
  }
}
