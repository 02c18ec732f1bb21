import { NEVER_MS } from '../base/clock.js';
import { invariant, LinkError, ProductError, ProtocolError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import type { ScsiCommand } from '../scsi/command.js';
import { CommandFlow } from './command-flow.js';
import { Connection } from './connection.js';
import type { AsyncMessage, ConnectionNotice } from './connection-notice.js';
import { Keepalive } from './keepalive.js';
import { LoginMachine } from './login.js';
import type { TextRequest } from './login-pdu.js';
import type { NegotiatedKey } from './negotiation.js';
import { LogoutReason } from './pdu.js';
import { formatPortal, type PortalAddress } from './portal.js';
import { PortalList, samePortal } from './portal-list.js';
import { ReconnectSchedule } from './reconnect-schedule.js';
import type { SessionConfig, SessionIdentity, SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';
import { type SessionState, type SessionStateEvent, sessionMove } from './session-state.js';

/**
 * A session: the identity, the portals, the state and the commands that wait for a connection.
 * Inputs are what happened (`linkOpened`, `bytesReceived`, `timeReached`, …); orders come out in
 * `effects` and commands that have an outcome in `completed`; the driver drains both after every
 * input. `deadlineAtMs` is the one instant at which `timeReached` wants to be called.
 */
export class Session {
  readonly identity: SessionIdentity;
  readonly config: SessionConfig;
  readonly timers: SessionTimers;
  readonly portals: PortalList;
  readonly effects: SessionEffect[] = [];
  readonly completed: ScsiCommand[] = [];
  state: SessionState = 'loggingIn';
  connection: Connection | null = null;
  /** Portal of the connection, or of the last one. */
  portal: PortalAddress | null = null;
  /** Offered, declared and in-force value of each key, of the last login. */
  keys: readonly NegotiatedKey[] = [];
  tsih = 0;
  attempts = 0;
  logins = 0;

  readonly #pool: SlabPool;
  readonly #flow: CommandFlow;
  #keepalive: Keepalive | null = null;
  readonly #schedule = new ReconnectSchedule();
  #loginDeadlineAtMs = NEVER_MS;
  #logoutDeadlineAtMs = NEVER_MS;

  constructor(options: { identity: SessionIdentity; config: SessionConfig; pool: SlabPool }) {
    this.identity = options.identity;
    this.config = options.config;
    this.timers = { ...options.config.timers };
    this.portals = new PortalList(options.config.portals);
    this.#pool = options.pool;
    this.#flow = new CommandFlow({
      depthMax: options.config.queueDepthMax,
      timers: this.timers,
      completed: this.completed,
      effects: this.effects,
    });
  }

  /** Begins the first login. */
  start(nowMs: number): void {
    this.#schedule.roundBegan(nowMs);
    this.#attempt(nowMs);
  }

  get deadlineAtMs(): number {
    const connection = this.connection;
    const keepaliveAtMs =
      connection?.isLoggedIn && this.#keepalive !== null
        ? this.#keepalive.deadlineAtMs(connection.lastReceivedAtMs)
        : NEVER_MS;
    return Math.min(
      keepaliveAtMs,
      this.#schedule.attemptAtMs,
      this.#schedule.removalAtMs,
      this.#flow.deadlineAtMs,
      this.#loginDeadlineAtMs,
      this.#logoutDeadlineAtMs,
    );
  }

  /** Instant of removal while `reconnecting`, else Infinity. */
  get removalAtMs(): number {
    return this.#schedule.removalAtMs;
  }

  get commandsWaiting(): number {
    return this.#flow.waitingCount;
  }

  get commandsInFlight(): number {
    return this.connection?.tasks.count ?? 0;
  }

  /** Takes a command. Without a login it comes back at once as `lost`. */
  submit(command: ScsiCommand, nowMs: number): void {
    this.#flow.submit(command, nowMs);
  }

  /** Sends a NOP-Out; the tag names its `pingAnswered` effect. */
  ping(data: Buffer): number {
    invariant(this.connection?.isLoggedIn, 'ping without a login');
    return this.connection.send.ping(data);
  }

  sendText(request: TextRequest): void {
    invariant(this.connection?.canSend, 'text request without a login or an open window');
    this.connection.send.text(request);
  }

  nextControlTag(): number {
    invariant(this.connection, 'a tag without a connection');
    return this.connection.tasks.nextControlTag();
  }

  linkOpened(nowMs: number): void {
    invariant(this.connection, 'a link without a connection');
    this.connection.linkOpened(nowMs);
  }

  /** The transport could not be opened, or is gone. */
  linkFailed(error: ProductError, nowMs: number): void {
    this.#connectionEnded(error, nowMs);
  }

  /** Bytes of the target in slab `slab`. What it did wrong ends the connection, never the process. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number, nowMs: number): void {
    const connection = this.connection;
    if (connection === null) return;
    let failure: ProductError | null = null;
    try {
      connection.bytesReceived(slab, buffer, start, end, nowMs);
    } catch (error) {
      failure = endsConnection(error);
    }
    // What was received before the failure counts: it may have been the end of the login.
    if (connection.notices.length > 0) this.#takeNotices(connection, nowMs);
    if (failure === null) this.#flow.send(nowMs);
    else if (this.connection === connection) this.#connectionEnded(failure, nowMs);
  }

  /** Does what is due at `nowMs`. */
  timeReached(nowMs: number): void {
    if (nowMs >= this.#loginDeadlineAtMs) this.#timedOut('no login', nowMs);
    if (nowMs >= this.#logoutDeadlineAtMs) this.#timedOut('no answer to the logout', nowMs);
    if (nowMs >= this.#schedule.removalAtMs) {
      this.#schedule.removed();
      const seconds = this.timers.removalLatencyMs / 1000;
      this.#enter('removalLatencyPassed', `away for the removal latency of ${seconds} s`);
    }
    if (nowMs >= this.#schedule.attemptAtMs) {
      if (this.portals.isAtRoundStart) this.#schedule.roundBegan(nowMs);
      this.#attempt(nowMs);
    }
    this.#checkLife(nowMs);
    this.#checkTasks(nowMs);
  }

  #timedOut(what: string, nowMs: number): void {
    this.#connectionEnded(new LinkError('ETIMEDOUT', `${what} in time`), nowMs);
  }

  /** Logs out, now: held and running commands come back as `lost`. Allowed in any state. */
  requestLogout(nowMs: number): void {
    if (this.state === 'closed' || this.state === 'loggingOut') return;
    const connection = this.connection;
    this.#schedule.stop();
    this.#enter('logoutRequested', 'logout requested');
    this.#flow.close();
    const canSay =
      connection !== null &&
      (connection.state === 'S5-loggedIn' || connection.state === 'S7-logoutRequested');
    if (canSay) {
      connection.logout(LogoutReason.closeSession);
      this.#logoutDeadlineAtMs = nowMs + this.timers.logoutTimeoutMs;
    } else if (connection?.state !== 'S6-inLogout') {
      this.#connectionEnded(null, nowMs);
    }
  }

  /** The removal latency has been changed: a running one counts from the outage's beginning. */
  removalLatencyChanged(removalLatencyMs: number): void {
    this.timers.removalLatencyMs = removalLatencyMs;
    if (this.state === 'reconnecting') this.#schedule.removalLatencyChanged(removalLatencyMs);
  }

  #enter(event: SessionStateEvent, reason: string, error?: ProductError): void {
    const from = this.state;
    this.state = sessionMove(from, event);
    if (from === this.state) return;
    this.effects.push({
      type: 'stateChanged',
      from,
      to: this.state,
      reason,
      ...(error === undefined ? {} : { error }),
    });
  }

  #attempt(nowMs: number): void {
    this.#schedule.attempted();
    this.#loginDeadlineAtMs = nowMs + this.timers.loginTimeoutMs;
    this.attempts += 1;
    const portal = this.portals.current;
    const { type, login } = this.config;
    const firstCmdSN = 1;
    this.connection = new Connection({
      pool: this.#pool,
      login: new LoginMachine({
        ...login,
        sessionType: type === 'discovery' ? 'Discovery' : 'Normal',
        isid: this.identity.isid,
        tsih: 0,
        cid: 0,
        initiatorTaskTag: 0,
        cmdSN: firstCmdSN,
      }),
      firstCmdSN,
      cid: 0,
      dataSegmentBytesMax: Math.max(login.offer.maxRecvDataSegmentLength, 8192),
      completed: this.completed,
    });
    this.effects.push({ type: 'openLink', portal });
  }

  /** One connection is over: by an error, by a finished logout (`null`), or by a redirect. */
  #connectionEnded(error: ProductError | null, nowMs: number): void {
    const connection = this.connection;
    const portal = this.portals.current;
    this.connection = null;
    this.#keepalive = null;
    this.#loginDeadlineAtMs = NEVER_MS;
    this.#logoutDeadlineAtMs = NEVER_MS;
    this.#flow.close();
    if (connection !== null) {
      connection.linkLost();
      this.effects.push({ type: 'closeLink' });
    }
    if (this.state === 'loggingOut') {
      this.#enter('logoutFinished', 'logged out', error ?? undefined);
      return;
    }
    if (this.state === 'loggedIn') {
      const reason = error?.message ?? 'the target asked for it';
      this.#enter('linkLost', reason, error ?? undefined);
      this.portals.beginRound();
      this.#schedule.outageBegan(nowMs, {
        time2WaitMs: (connection?.parameters?.defaultTime2Wait ?? 0) * 1000,
        removalLatencyMs: this.timers.removalLatencyMs,
      });
      return;
    }
    if (error !== null) this.effects.push({ type: 'attemptFailed', portal, error });
    if (this.portals.attemptFailed()) {
      this.#schedule.tryNext(nowMs);
    } else if (this.state === 'loggingIn' && this.config.firstLogin === 'once') {
      const reason = error?.message ?? 'the login failed';
      this.#enter('loginGivenUp', reason, error ?? undefined);
    } else {
      this.#schedule.roundEnded(nowMs, this.timers.reconnectIntervalMs);
    }
  }

  #takeNotices(connection: Connection, nowMs: number): void {
    for (const notice of connection.notices) {
      if (this.connection !== connection) break;
      try {
        this.#noticed(notice, nowMs);
      } catch (error) {
        this.#connectionEnded(endsConnection(error), nowMs);
      }
    }
    connection.notices.length = 0;
  }

  #noticed(notice: ConnectionNotice, nowMs: number): void {
    switch (notice.type) {
      case 'done':
        this.#loggedIn(notice, nowMs);
        return;
      case 'redirect':
        this.#redirected(notice, nowMs);
        return;
      case 'logoutAnswered':
        this.#logoutAnswered(notice, nowMs);
        return;
      case 'asyncReceived':
        this.#asyncReceived(notice.message, nowMs);
        return;
      case 'textReceived':
      case 'pingAnswered':
      case 'rejected':
        this.effects.push(notice);
        return;
      case 'taskManagementAnswered':
        this.#flow.taskManagementAnswered(notice.initiatorTaskTag, notice.response, nowMs);
        return;
    }
  }

  #loggedIn(done: Extract<ConnectionNotice, { type: 'done' }>, nowMs: number): void {
    this.#loginDeadlineAtMs = NEVER_MS;
    this.#schedule.loggedIn();
    this.keys = done.keys;
    this.tsih = done.tsih;
    this.logins += 1;
    const portal = this.portals.current;
    const from = this.portal;
    this.portal = portal;
    this.portals.beginRound();
    if (from !== null && !samePortal(from, portal)) {
      this.effects.push({ type: 'portalChanged', from, to: portal });
    }
    for (const message of done.warnings) this.effects.push({ type: 'warned', message });
    this.#keepalive = new Keepalive({
      intervalMs: this.timers.noopIntervalMs,
      timeoutMs: this.timers.noopTimeoutMs,
    });
    if (this.connection !== null) this.#flow.open(this.connection, nowMs);
    this.#enter('loginSucceeded', `logged in to ${formatPortal(portal)}`);
  }

  #redirected(redirect: Extract<ConnectionNotice, { type: 'redirect' }>, nowMs: number): void {
    const address = redirect.addresses[0];
    const connection = this.connection;
    this.connection = null;
    connection?.linkLost();
    this.effects.push({ type: 'closeLink' });
    if (address === undefined || !this.portals.redirected(address, redirect.permanent)) {
      const error = new ProtocolError('11.13.5', 'the target redirects without end');
      this.#connectionEnded(error, nowMs);
      return;
    }
    for (const other of redirect.addresses.slice(1)) this.portals.add(other);
    this.#attempt(nowMs);
  }

  #logoutAnswered(
    answer: Extract<ConnectionNotice, { type: 'logoutAnswered' }>,
    nowMs: number,
  ): void {
    this.#schedule.notBefore(nowMs + answer.time2WaitSeconds * 1000);
    const error =
      answer.response === 0
        ? null
        : new ProtocolError('11.15.1', `the target answered the logout with ${answer.response}`);
    this.#connectionEnded(error, nowMs);
  }

  /** RFC 7143 §11.9 (Asynchronous Message). */
  #asyncReceived(message: AsyncMessage, nowMs: number): void {
    this.effects.push({ type: 'asyncReceived', message });
    const connection = this.connection;
    switch (message.event) {
      case 1: // log out within Parameter3 seconds
      case 4: // renegotiate within Parameter3 seconds: a new login does that
        if (connection === null || this.state !== 'loggedIn') return;
        this.#flow.close();
        connection.logout(LogoutReason.closeSession);
        this.#logoutDeadlineAtMs =
          nowMs + Math.min(this.timers.logoutTimeoutMs, Math.max(message.parameter3, 1) * 1000);
        return;
      case 2: // this connection is being dropped
      case 3: // all of them are
        this.#schedule.notBefore(nowMs + message.parameter2 * 1000);
        this.#connectionEnded(
          new LinkError('ECONNRESET', 'the target said that it drops the connection'),
          nowMs,
        );
        return;
      default:
    }
  }

  #checkLife(nowMs: number): void {
    const connection = this.connection;
    if (connection === null || !connection.isLoggedIn || this.#keepalive === null) return;
    switch (this.#keepalive.check(connection.lastReceivedAtMs, nowMs)) {
      case 'ping':
        connection.send.ping(Buffer.alloc(0));
        return;
      case 'dead': {
        const silentSeconds = ((nowMs - connection.lastReceivedAtMs) / 1000).toFixed(1);
        const error = new LinkError('ETIMEDOUT', `no sign of life for ${silentSeconds} s`);
        this.#connectionEnded(error, nowMs);
        return;
      }
      case 'alive':
    }
  }

  #checkTasks(nowMs: number): void {
    try {
      this.#flow.timeReached(nowMs);
    } catch (error) {
      this.#connectionEnded(endsConnection(error), nowMs);
    }
  }
}

/** Errors of the target and the network end a connection; ours end the process. */
function endsConnection(error: unknown): ProductError {
  if (error instanceof ProductError && error.code !== 'ERR_INVARIANT') return error;
  throw error;
}
