import { NEVER_MS } from '../base/clock.js';

/**
 * Signs of life on one connection (RFC 7143 §11.18 (NOP-Out)): silence for `intervalMs` asks for
 * a ping; silence for `timeoutMs` more means that the path is dead. Any bytes count as life.
 */
export class Keepalive {
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #pingSentAtMs = -1;

  /** `intervalMs` 0 turns the keepalive off. */
  constructor(options: { readonly intervalMs: number; readonly timeoutMs: number }) {
    this.#intervalMs = options.intervalMs;
    this.#timeoutMs = options.timeoutMs;
  }

  /** Instant at which `check` has something to say, if nothing is received until then. */
  deadlineAtMs(lastReceivedAtMs: number): number {
    if (this.#intervalMs <= 0) return NEVER_MS;
    if (this.#pingSentAtMs > lastReceivedAtMs) return this.#pingSentAtMs + this.#timeoutMs;
    return lastReceivedAtMs + this.#intervalMs;
  }

  check(lastReceivedAtMs: number, nowMs: number): 'alive' | 'ping' | 'dead' {
    if (nowMs < this.deadlineAtMs(lastReceivedAtMs)) return 'alive';
    if (this.#pingSentAtMs > lastReceivedAtMs) return 'dead';
    this.#pingSentAtMs = nowMs;
    return 'ping';
  }
}
