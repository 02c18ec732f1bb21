import { NEVER_MS } from '../../base/clock.js';

/**
 * When the next login attempt is due: a round of attempts over all portals every interval, not
 * before the target's Time2Wait (RFC 7143 §7.5 (Connection Timeout Management)).
 */
export class ReconnectSchedule {
  attemptAtMs = NEVER_MS;
  #roundStartedAtMs = 0;
  #loggedInAtMs = 0;
  /** Logins in a row that did not last for one interval. */
  #shortLives = 0;

  /** An attempt is being made now. */
  attempted(): void {
    this.attemptAtMs = NEVER_MS;
  }

  /** A new round of attempts begins now. */
  roundBegan(nowMs: number): void {
    this.#roundStartedAtMs = nowMs;
  }

  /**
   * The first attempt is made at once, or when the target allows; a target that takes logins and
   * drops them over and over sees one each interval.
   */
  outageBegan(
    nowMs: number,
    waits: { readonly time2WaitMs: number; readonly reconnectIntervalMs: number },
  ): void {
    const { time2WaitMs, reconnectIntervalMs } = waits;
    const isShort = nowMs - this.#loggedInAtMs < reconnectIntervalMs;
    this.#shortLives = isShort ? this.#shortLives + 1 : 0;
    this.attemptAtMs = nowMs + time2WaitMs;
    if (this.#shortLives > 1) {
      const nextAtMs = this.#roundStartedAtMs + reconnectIntervalMs;
      this.attemptAtMs = Math.max(this.attemptAtMs, nextAtMs);
    }
  }

  /** Another portal of the same round, or another way to log in, is to be tried at once. */
  tryNext(nowMs: number): void {
    this.attemptAtMs = nowMs;
  }

  /** All portals have been tried. */
  roundEnded(nowMs: number, reconnectIntervalMs: number): void {
    this.attemptAtMs = Math.max(nowMs, this.#roundStartedAtMs + reconnectIntervalMs);
  }

  loggedIn(nowMs: number): void {
    this.#loggedInAtMs = nowMs;
    this.attemptAtMs = NEVER_MS;
  }

  /** Nothing is to happen any more. */
  stop(): void {
    this.attemptAtMs = NEVER_MS;
  }
}
