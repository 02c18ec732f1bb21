import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { SignalName, SignalSource } from './context.js';

/** The code of the error where a signal has ended the work. */
export const INTERRUPTED = 'ERR_INTERRUPTED';
const NAMES: readonly SignalName[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/**
 * The wish of a person or the system that a command ends. The first signal asks for an orderly
 * end, the second for one at once.
 */
export class Interrupts {
  readonly #source: SignalSource;
  readonly #listeners: readonly (readonly [SignalName, () => void])[];
  readonly #orderly = new AbortController();
  readonly #atOnce = new AbortController();
  #name: SignalName = 'SIGINT';

  constructor(source: SignalSource) {
    this.#source = source;
    this.#listeners = NAMES.map((name) => [name, () => this.#received(name)] as const);
    for (const [name, listener] of this.#listeners) source.on(name, listener);
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#orderly.signal;
  }

  /** Aborted by the second signal. */
  get forceSignal(): AbortSignal {
    return this.#atOnce.signal;
  }

  /** The first signal; SIGINT before there was one. */
  get name(): SignalName {
    return this.#name;
  }

  /** The result of `work`, unless a signal ends it: then UsageError with the shell's status. */
  async orInterrupted<T>(work: Promise<T>): Promise<T> {
    const forced = whenAborted(this.forceSignal).then(() => {
      throw this.#error();
    });
    try {
      return await Promise.race([work, forced]);
    } catch (error) {
      throw this.signal.aborted ? this.#error(error) : error;
    }
  }

  /** The result of `work`, unless the first signal ends it: for work that leaves nothing behind. */
  async orStopped<T>(work: Promise<T>): Promise<T> {
    const stopped = whenAborted(this.signal).then(() => {
      throw this.#error();
    });
    return this.orInterrupted(Promise.race([work, stopped]));
  }

  [Symbol.dispose](): void {
    for (const [name, listener] of this.#listeners) this.#source.off(name, listener);
  }

  #received(name: SignalName): void {
    if (this.#orderly.signal.aborted) {
      this.#atOnce.abort();
      return;
    }
    this.#name = name;
    this.#orderly.abort();
  }

  #error(cause?: unknown): UsageError {
    const { interrupted, terminated } = EXIT_CODES;
    const { code } = this.#name === 'SIGINT' ? interrupted : terminated;
    return new UsageError('Interrupted before it was done.', {
      code: INTERRUPTED,
      exitCode: code,
      cause,
    });
  }
}

/** Resolves when `signal` is aborted, at once if it is already. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
