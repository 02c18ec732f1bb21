import { LinkError, LoginRefusedError, type ProductError, ProtocolError } from '../base/errors.js';
import type { SessionEffect } from '../iscsi/session-effect.js';
import type { SessionHandle } from './session-handle.js';

/** Quantiles are over the time since the last of these, and the one before it. */
const WINDOW_MS = 10_000;

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
  readonly #handle: SessionHandle;
  #window: { readonly atMs: number; readonly buckets: Float64Array } | null = null;
  #before: Float64Array | undefined;

  constructor(handle: SessionHandle) {
    this.#handle = handle;
    handle.listen((effect) => this.#effect(effect));
  }

  /** Latency of the commands since the window before the present one began. */
  recentLatency(nowMs: number): { readonly p50Ms: number; readonly p99Ms: number } {
    const { latency } = this.#handle.initiator;
    if (this.#window === null || nowMs - this.#window.atMs >= WINDOW_MS) {
      this.#before = this.#window?.buckets;
      this.#window = { atMs: nowMs, buckets: latency.snapshot() };
    }
    const { p50Ms, p99Ms } = latency.summary(this.#before);
    return { p50Ms, p99Ms };
  }

  #effect(effect: SessionEffect): void {
    if (effect.type === 'attemptFailed') {
      this.loginFailures += 1;
      this.lastError = effect.error.message;
      this.#loginFailed(effect.error);
    }
    if (effect.type !== 'stateChanged') return;
    if (effect.to === 'loggedIn') {
      this.loginAcceptRsps += 1;
      this.lastError = null;
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
