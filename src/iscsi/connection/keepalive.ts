import { NEVER_MS } from '../../base/clock.js';
import { LinkError } from '../../base/errors.js';
import type { Connection } from './connection.js';

const NO_DATA = Buffer.alloc(0);

/**
 * Signs of life on one connection (RFC 7143 §11.18 (NOP-Out)): silence for `intervalMs` asks for
 * a ping; silence for `timeoutMs` more means that the path is dead. Any bytes count as life.
 */
export class Keepalive {
  readonly #connection: Connection;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #pingSentAtMs = -1;

  /** `intervalMs` 0 turns the keepalive off. */
  constructor(
    connection: Connection,
    options: { readonly intervalMs: number; readonly timeoutMs: number },
  ) {
    this.#connection = connection;
    this.#intervalMs = options.intervalMs;
    this.#timeoutMs = options.timeoutMs;
  }

  /** Instant at which `timeReached` has something to do, if nothing is received until then. */
  get deadlineAtMs(): number {
    const { isLoggedIn, lastReceivedAtMs } = this.#connection;
    if (this.#intervalMs <= 0 || !isLoggedIn) return NEVER_MS;
    if (this.#pingSentAtMs > lastReceivedAtMs) return this.#pingSentAtMs + this.#timeoutMs;
    return lastReceivedAtMs + this.#intervalMs;
  }

  /** Sends the ping that is due; throws LinkError when the path is dead. */
  timeReached(nowMs: number): void {
    if (nowMs < this.deadlineAtMs) return;
    const { lastReceivedAtMs, send } = this.#connection;
    if (this.#pingSentAtMs > lastReceivedAtMs) {
      const silentSeconds = ((nowMs - lastReceivedAtMs) / 1000).toFixed(1);
      throw new LinkError('ETIMEDOUT', `no sign of life for ${silentSeconds} s`);
    }
    this.#pingSentAtMs = nowMs;
    send.nopOut(NO_DATA);
  }
}
