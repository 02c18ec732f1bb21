import { LinkError, LoginRefusedError, type ProductError, ProtocolError } from '../base/errors.js';
import type { SessionClient } from '../session/session-client.js';
import type { SessionEvent } from '../session/session-event.js';

/** Recent readings are over the window that runs and the one before it. */
export const WINDOW_MS = 10_000;

/** Where the counts stood when a window began. */
type Mark = { readonly atMs: number; readonly bytes: number; readonly buckets: Float64Array };

/** Counts of one session in the names of Microsoft's WMI classes; times in milliseconds. */
export class SessionStatistics {
  digestErrors = 0;
  connectionTimeoutErrors = 0;
  formatErrors = 0;
  loginAcceptRsps = 0;
  loginOtherFailRsps = 0;
  loginAuthFailRsps = 0;
  loginNegotiateFails = 0;
  loginFailures = 0;
  logoutNormals = 0;
  logoutOtherCodes = 0;
  /** Why the last attempt failed or the last link was lost; null while all is well. */
  lastError: string | null = null;
  readonly #handle: SessionClient;
  #window: Mark;
  #before: Mark;

  constructor(handle: SessionClient, nowMs: number) {
    this.#handle = handle;
    this.#window = this.#mark(nowMs);
    this.#before = this.#window;
    handle.listen((effect) => this.#effect(effect));
  }

  /** A new window begins; to be called every `WINDOW_MS`. */
  windowPassed(nowMs: number): void {
    this.#before = this.#window;
    this.#window = this.#mark(nowMs);
  }

  /** Recent latency of the commands, and recent bytes in both directions. */
  recent(nowMs: number): {
    readonly p50Ms: number;
    readonly p99Ms: number;
    readonly bytesPerSecond: number;
  } {
    const { atMs, bytes, buckets } = this.#before;
    const { p50Ms, p99Ms } = this.#handle.initiator.latency.summary(buckets);
    const seconds = Math.max(nowMs - atMs, 1) / 1000;
    return { p50Ms, p99Ms, bytesPerSecond: Math.round((this.#bytes - bytes) / seconds) };
  }

  get #bytes(): number {
    const { bytesReceivedTotal, bytesSentTotal } = this.#handle.initiator;
    return bytesReceivedTotal + bytesSentTotal;
  }

  #mark(atMs: number): Mark {
    return { atMs, bytes: this.#bytes, buckets: this.#handle.initiator.latency.snapshot() };
  }

  #effect(effect: SessionEvent): void {
    if (effect.type === 'attemptFailed') {
      this.loginFailures += 1;
      this.lastError = effect.error.message;
      this.#loginFailed(effect.error);
    }
    if (effect.type !== 'stateChanged') return;
    if (effect.to === 'loggedIn') {
      this.loginAcceptRsps += 1;
      // A login alone is no progress against a target that breaks the same rule again and again.
      this.lastError = this.#handle.session.stuckOn?.message ?? null;
    }
    if (effect.to === 'reconnecting') {
      this.lastError = effect.reason;
      if (effect.error !== undefined) this.#linkLost(effect.error);
    }
    if (effect.from === 'loggingOut') {
      if (effect.error === undefined) this.logoutNormals += 1;
      else this.logoutOtherCodes += 1;
    }
  }

  #loginFailed(error: ProductError): void {
    if (error instanceof LoginRefusedError) {
      const isAuthentication = error.statusClass === 2 && error.statusDetail === 1;
      if (isAuthentication) this.loginAuthFailRsps += 1;
      else this.loginOtherFailRsps += 1;
    } else if (error instanceof ProtocolError) {
      this.loginNegotiateFails += 1;
    }
  }

  #linkLost(error: ProductError): void {
    if (error instanceof ProtocolError) {
      if (error.section === '7.8') this.digestErrors += 1;
      else this.formatErrors += 1;
    } else if (error instanceof LinkError && error.errno === 'ETIMEDOUT') {
      this.connectionTimeoutErrors += 1;
    }
  }
}
