import { NEVER_MS } from '../base/clock.js';

/**
 * When the next login attempt is due and when the devices are to go: a round of attempts over all
 * portals every interval, not before the target's Time2Wait (RFC 7143 §7.5 (Connection Timeout
 * Management)), and one removal a latency after the outage began.
 */
export class ReconnectSchedule {
  attemptAtMs = NEVER_MS;
  removalAtMs = NEVER_MS;
  #outageStartedAtMs = 0;
  #roundStartedAtMs = 0;
  #notBeforeAtMs = 0;

  /** An attempt is being made now. */
  attempted(): void {
    this.attemptAtMs = NEVER_MS;
  }

  /** A new round of attempts begins now. */
  roundBegan(nowMs: number): void {
    this.#roundStartedAtMs = nowMs;
  }

  /** The target does not want to see us before this. */
  notBefore(atMs: number): void {
    this.#notBeforeAtMs = atMs;
  }

  outageBegan(nowMs: number, waits: { time2WaitMs: number; removalLatencyMs: number }): void {
    this.#outageStartedAtMs = nowMs;
    this.removalAtMs = nowMs + waits.removalLatencyMs;
    this.attemptAtMs = Math.max(nowMs + waits.time2WaitMs, this.#notBeforeAtMs);
  }

  /** Another portal of the same round is to be tried at once. */
  tryNext(nowMs: number): void {
    this.attemptAtMs = Math.max(nowMs, this.#notBeforeAtMs);
  }

  /** All portals have been tried. */
  roundEnded(nowMs: number, reconnectIntervalMs: number): void {
    const nextAtMs = this.#roundStartedAtMs + reconnectIntervalMs;
    this.attemptAtMs = Math.max(nowMs, nextAtMs, this.#notBeforeAtMs);
  }

  /** The latency counts from the beginning of the outage, whenever it is changed. */
  removalLatencyChanged(removalLatencyMs: number): void {
    this.removalAtMs = this.#outageStartedAtMs + removalLatencyMs;
  }

  removed(): void {
    this.removalAtMs = NEVER_MS;
  }

  loggedIn(): void {
    this.removalAtMs = NEVER_MS;
    this.attemptAtMs = NEVER_MS;
    this.#notBeforeAtMs = 0;
  }

  /** Nothing is to happen any more. */
  stop(): void {
    this.removalAtMs = NEVER_MS;
    this.attemptAtMs = NEVER_MS;
  }
}
