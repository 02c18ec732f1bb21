import { deferred } from '../base/deferred.js';
import { type ProductError, UsageError } from '../base/errors.js';
import type {
  BootReason,
  BootTestHooks,
  BootTestOptions,
  BootVerdict,
} from '../config/contract.js';
import { ConsoleText } from './boot-test-console.js';
import { BootPatterns } from './boot-test-patterns.js';
import type { QmpEvent } from './boot-test-qmp.js';

/** Images may start again once or twice on their first boot; more is a circle. */
const RESETS_MAX = 5;
/** Consoles come a character at a time: they are examined when some have gathered. */
const LOOK_INTERVAL_MS = 50;
/** How long the rest of a line that fails is waited for: it says why. */
const LINE_END_MS = 1000;
const LINES_GATHERED_MAX = 1000;
const LAST_LINES_MAX = 20;

/**
 * Watches a machine by its console and its events until it is clear whether the image boots.
 * `verdict` rejects where the reason is no fault of the image.
 */
export class BootJudge {
  readonly #hooks: BootTestHooks;
  readonly #console = new ConsoleText();
  readonly #patterns: BootPatterns;
  readonly #startedAtMs = performance.now();
  readonly #deadline: NodeJS.Timeout;
  #lastLines: string[] = [];
  #resets = 0;
  #look: NodeJS.Timeout | null = null;
  #lineEnd: NodeJS.Timeout | null = null;
  #isLineAwaited = true;
  #isOver = false;
  readonly #verdict = deferred<BootVerdict>();

  constructor(options: BootTestOptions, hooks: BootTestHooks) {
    this.#hooks = hooks;
    this.#patterns = new BootPatterns(options);
    this.#deadline = setTimeout(() => this.#decide('timeout'), options.timeoutSeconds * 1000);
  }

  get verdict(): Promise<BootVerdict> {
    return this.#verdict.promise;
  }

  consoleSaid(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#console.push(chunk);
    if (this.#console.waiting > LINES_GATHERED_MAX) this.#lookNow();
    else this.#look ??= setTimeout(() => this.#lookNow(), LOOK_INTERVAL_MS);
  }

  machineTold({ event, data }: QmpEvent): void {
    if (event === 'RESET' && data['guest'] === true) {
      this.#resets += 1;
      if (this.#resets > RESETS_MAX) this.#decide('resets');
    } else if (event === 'SHUTDOWN' && data['guest'] === true) {
      this.#decide('shutdown');
    } else if (event === 'GUEST_PANICKED') {
      this.#decide('panicked');
    } else if (event === 'BLOCK_IO_ERROR' && data['action'] === 'stop') {
      this.fail(diskIsFull(data));
    }
  }

  machineEnded(words: string): void {
    this.#decide('qemuEnded', words === '' ? undefined : words);
  }

  /** It is over without a verdict on the image. */
  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#end();
    this.#verdict.reject(error);
  }

  /** What the console said before an event may still be on its way to be looked at. */
  #decide(reason: BootReason, line?: string): void {
    if (this.#isOver) return;
    this.#isLineAwaited = false;
    this.#lookNow();
    this.#pass(reason, line);
  }

  #pass(reason: BootReason, line?: string): void {
    if (this.#isOver) return;
    this.#end();
    const { unfinished } = this.#console;
    this.#verdict.resolve({
      passed: reason === 'expected',
      reason,
      ...(line === undefined ? {} : { line }),
      elapsedMs: Math.round(performance.now() - this.#startedAtMs),
      resets: this.#resets,
      lastLines: [...this.#lastLines, ...(unfinished.trim() === '' ? [] : [unfinished])],
    });
  }

  #lookNow(): void {
    if (this.#look !== null) clearTimeout(this.#look);
    this.#look = null;
    const lines = this.#console.takeLines();
    const { unfinished } = this.#console;
    this.#lastLines = [...this.#lastLines, ...lines].slice(-LAST_LINES_MAX);
    this.#hooks.onConsole(lines, unfinished);
    try {
      const hit = this.#patterns.look(unfinished === '' ? lines : [...lines, unfinished]);
      if (hit?.kind === 'expected') this.#pass('expected', hit.line);
      else if (hit !== null && this.#isWhole(hit.line, lines)) this.#pass('failPattern', hit.line);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Prompts never end, so the wait for a line does. */
  #isWhole(line: string, lines: readonly string[]): boolean {
    if (lines.includes(line) || !this.#isLineAwaited) return true;
    this.#lineEnd ??= setTimeout(() => {
      this.#isLineAwaited = false;
      this.#lookNow();
    }, LINE_END_MS);
    return false;
  }

  #end(): void {
    this.#isOver = true;
    if (this.#lineEnd !== null) clearTimeout(this.#lineEnd);
    clearTimeout(this.#deadline);
    if (this.#look !== null) clearTimeout(this.#look);
  }
}

function diskIsFull(data: QmpEvent['data']): ProductError {
  const why = typeof data['reason'] === 'string' ? ` (${data['reason']})` : '';
  return new UsageError(
    `The disk of the machine takes no more writes${why}, so nothing is known of the image. ` +
      'Make room where the overlay is: TMPDIR names a folder, --keep-overlay a file.',
    { exitCode: 1, code: 'ERR_DISK_FULL' },
  );
}
