/**
 * Time as a value. Protocol and policy code is given `nowMs`; only `io/` reads a real clock.
 * Instants are milliseconds on a monotonic scale whose zero has no meaning.
 */
export interface Clock {
  /** Monotonic milliseconds; may have a fraction. */
  nowMs(): number;
  /** Runs `action` once at or after `atMs`; the returned function cancels it. */
  at(atMs: number, action: () => void): () => void;
}

/** Resolves `ms` milliseconds from now. */
export function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.at(clock.nowMs() + ms, resolve);
  });
}

/** A deadline that never comes. */
export const NEVER_MS = Number.POSITIVE_INFINITY;
