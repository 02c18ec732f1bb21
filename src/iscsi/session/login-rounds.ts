import type { ProductError } from '../../base/errors.js';
import type { ConnectionNotice } from '../connection/connection-notice.js';
import type { LoginMachine } from '../login/login.js';
import type { PortalAddress } from '../login/portal.js';
import type { QuirkLog } from '../quirks/quirks.js';
import { LoginFactory } from './login-factory.js';
import { PortalList, samePortal } from './portal-list.js';
import { ReconnectSchedule } from './reconnect-schedule.js';
import type { SessionConfig, SessionIdentity, SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';

/**
 * The logins of one session, one after another: where the next one goes, when, and with what it is
 * made. What they teach (portals, portal groups, algorithms) stays for those that follow.
 */
export class LoginRounds {
  readonly portals: PortalList;
  readonly schedule = new ReconnectSchedule();
  attempts = 0;
  readonly #plan: LoginFactory;
  readonly #timers: SessionTimers;
  readonly #effects: SessionEffect[];

  constructor(options: {
    readonly identity: SessionIdentity;
    readonly config: SessionConfig;
    readonly timers: SessionTimers;
    readonly effects: SessionEffect[];
    readonly quirks: QuirkLog;
  }) {
    this.portals = new PortalList(options.config.portals);
    this.#plan = new LoginFactory(options);
    this.#timers = options.timers;
    this.#effects = options.effects;
  }

  /** A login to the current portal, to be made now. */
  attempt(nowMs: number): LoginMachine {
    if (this.portals.isAtRoundStart && !this.portals.isRedirected) this.schedule.roundBegan(nowMs);
    this.schedule.attempted();
    this.attempts += 1;
    return this.#plan.begin(this.portals.current);
  }

  /**
   * The attempt failed (`null`: it was given up). `error` is the reason, for the report;
   * `isRoundOver` is false when another portal, or another way to log in, is tried next.
   */
  failed(
    error: ProductError | null,
    nowMs: number,
  ): { readonly error: ProductError | null; readonly isRoundOver: boolean } {
    const portal = this.portals.current;
    const verdict = error === null ? null : this.#plan.failed(error);
    if (verdict?.type === 'tryAgain') {
      const { warning } = verdict;
      if (warning !== null) {
        this.#effects.push({ type: 'warned', message: warning, isOfKeys: true });
      }
      this.schedule.tryNext(nowMs);
      return { error, isRoundOver: false };
    }
    const told = verdict === null ? null : verdict.error;
    if (told !== null) this.#effects.push({ type: 'attemptFailed', portal, error: told });
    const isRoundOver = !this.portals.attemptFailed();
    if (!isRoundOver) this.schedule.tryNext(nowMs);
    return { error: told, isRoundOver };
  }

  /** The round is over and the next one is to come. */
  roundEnded(nowMs: number): void {
    this.schedule.roundEnded(nowMs, this.#timers.reconnectIntervalMs);
  }

  /**
   * The target sent the login elsewhere; false when it has done so too often. Any machine that
   * answers may redirect, but only one that has been authenticated as configured does so for good.
   * RFC 7143 §13.8 (TargetAddress): in a redirection it has no portal group tag.
   */
  redirected(redirect: Extract<ConnectionNotice, { type: 'redirect' }>): boolean {
    const from = this.portals.current;
    const [to, ...others] = redirect.addresses.map(({ host, port }) => ({ host, port }));
    const permanent = redirect.permanent && redirect.authenticated;
    if (to === undefined || !this.portals.redirected(to, permanent)) return false;
    if (permanent) for (const other of others) this.portals.add(other);
    this.#effects.push({ type: 'redirected', from, to, permanent });
    return true;
  }

  /** The login succeeded. `before` is the portal of the login before it; returns this one's. */
  succeeded(
    done: Extract<ConnectionNotice, { type: 'done' }>,
    context: { readonly before: PortalAddress | null; readonly nowMs: number },
  ): PortalAddress {
    const portal = this.portals.current;
    const { before, nowMs } = context;
    this.schedule.loggedIn(nowMs);
    this.portals.beginRound();
    if (before !== null && !samePortal(before, portal)) {
      this.#effects.push({ type: 'portalChanged', from: before, to: portal });
    }
    const warnings = this.#plan.succeeded(portal, done.parameters);
    for (const message of done.warnings) {
      this.#effects.push({ type: 'warned', message, isOfKeys: true });
    }
    for (const message of warnings) this.#effects.push({ type: 'warned', message });
    return portal;
  }

  /** The connection has ended, and every command with an answer. */
  endedCleanly(): void {
    this.#plan.endedCleanly();
  }

  /** No request waits for the session any more. */
  requestsFailed(): void {
    this.#plan.requestsFailed();
  }

  /** The session lost its connection; `time2WaitMs` is the target's wish. */
  outageBegan(nowMs: number, time2WaitMs: number): void {
    this.portals.outageBegan();
    const { reconnectIntervalMs } = this.#timers;
    this.schedule.outageBegan(nowMs, { time2WaitMs, reconnectIntervalMs });
  }
}
