/**
 * Time as a value. Protocol and policy code is given `nowMs`; only `io/` reads a real clock.
 * Instants are milliseconds on a monotonic scale whose zero has no meaning.
 */
export interface Clock {
  /** Monotonic milliseconds; may have a fraction. */
  nowMs(): number;
  /** The same, at the receipt that is being dealt with if there is one: it costs no system call. */
  receiptMs?(): number;
  /** Runs `action` once at or after `atMs`; the returned function cancels it. */
  at(atMs: number, action: () => void): () => void;
}

/** Resolves `ms` milliseconds from now, or when `signal` aborts. */
export function pause(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.at(clock.nowMs() + ms, done);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/** A deadline that never comes. */
export const NEVER_MS = Number.POSITIVE_INFINITY;
