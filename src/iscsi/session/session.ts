import { NEVER_MS } from '../../base/clock.js';
import {
  invariant,
  LinkError,
  type ProductError,
  type ProtocolError,
  productError,
  UsageError,
} from '../../base/errors.js';
import type { SlabPool } from '../../base/slab.js';
import type { ScsiCommand } from '../../scsi/command.js';
import { asyncOrderOf } from '../connection/async-message.js';
import { Connection } from '../connection/connection.js';
import type { AsyncMessage, ConnectionNotice } from '../connection/connection-notice.js';
import { Keepalive } from '../connection/keepalive.js';
import { logoutOutcome } from '../connection/logout-answer.js';
import type { NegotiatedKey } from '../login/negotiation.js';
import { formatPortal, type PortalAddress } from '../login/portal.js';
import type { TextRequest } from '../pdu/login-pdu.js';
import { LogoutReason, RequestOpcode } from '../pdu/pdu.js';
import { brokenRule, QuirkLog } from '../quirks/quirks.js';
import { CommandFlow } from './command-flow.js';
import { FIRST_CMD_SN, LEADING_CID } from './login-factory.js';
import { LoginRounds } from './login-rounds.js';
import type { PortalList } from './portal-list.js';
import { RuleStreak } from './rule-streak.js';
import type { SessionConfig, SessionIdentity, SessionTimers } from './session-config.js';
import type { SessionEffect } from './session-effect.js';
import { type SessionState, type SessionStateEvent, sessionMove } from './session-state.js';
import { FUNCTION_REJECTED } from './task-escalation.js';

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
  readonly effects: SessionEffect[] = [];
  readonly completed: ScsiCommand[] = [];
  state: SessionState = 'loggingIn';
  connection: Connection | null = null;
  /** Portal of the connection, or of the last one. */
  portal: PortalAddress | null = null;
  /** Offered, declared and in-force value of each key, of the last login. */
  keys: readonly NegotiatedKey[] = [];
  tsih = 0;
  logins = 0;

  /** Commands that wait or are in flight; for what concerns them and not the session. */
  readonly flow: CommandFlow;
  readonly #pool: SlabPool;
  /** What the target does against the RFC, over all logins. */
  readonly quirks = new QuirkLog((quirk) => {
    if (quirk.quirk === 'statsn-gap') this.flow.sendOneAtATime();
    this.effects.push({ type: 'targetQuirk', ...quirk });
  });
  readonly #rounds: LoginRounds;
  readonly #streak = new RuleStreak();
  #keepalive: Keepalive | null = null;
  #loginDeadlineAtMs = NEVER_MS;
  #logoutDeadlineAtMs = NEVER_MS;

  constructor(options: { identity: SessionIdentity; config: SessionConfig; pool: SlabPool }) {
    this.identity = options.identity;
    this.config = options.config;
    this.timers = { ...options.config.timers };
    this.#pool = options.pool;
    const { config, timers, effects, completed, quirks } = this;
    this.#rounds = new LoginRounds({ ...options, timers, effects, quirks });
    this.flow = new CommandFlow({ depthMax: config.queueDepthMax, timers, completed, effects });
  }

  /** The broken rule that keeps the session from getting on; null while it does or may. */
  get stuckOn(): ProtocolError | null {
    return this.connection?.isUsed === true ? null : this.#streak.error;
  }

  get portals(): PortalList {
    return this.#rounds.portals;
  }

  get attempts(): number {
    return this.#rounds.attempts;
  }

  /** Begins the first login. */
  start(nowMs: number): void {
    const isResumed = this.config.firstLogin === 'resume';
    if (isResumed) this.#enter('resumed', 'goes on after another process');
    this.#attempt(nowMs);
  }

  get deadlineAtMs(): number {
    return Math.min(
      this.#keepalive?.deadlineAtMs ?? NEVER_MS,
      this.connection?.deadlineAtMs ?? NEVER_MS,
      this.#rounds.schedule.attemptAtMs,
      this.flow.deadlineAtMs,
      this.#loginDeadlineAtMs,
      this.#logoutDeadlineAtMs,
    );
  }

  /** Instant of the next attempt; Infinity while none is due. */
  get attemptAtMs(): number {
    return this.#rounds.schedule.attemptAtMs;
  }

  get commandsInFlight(): number {
    return this.connection?.tasks.count ?? 0;
  }

  /** Takes a command. Without a login it comes back at once as `lost`. */
  submit(command: ScsiCommand, nowMs: number): void {
    this.flow.submit(command, nowMs);
  }

  /**
   * Sends a NOP-Out; the tag names its `pingAnswered` effect. Throws UsageError for more data than
   * the target takes in one PDU.
   */
  ping(data: Buffer): number {
    const { connection } = this;
    invariant(connection?.isLoggedIn && connection.parameters, 'ping without a login');
    const bytesMax = connection.parameters.targetMaxRecvDataSegmentLength;
    if (data.length > bytesMax) {
      throw new UsageError(`the target takes ${bytesMax} bytes of ping data at most`);
    }
    return connection.send.nopOut(data);
  }

  /** Sends a text request once the command window is open. Throws LinkError without a login. */
  sendText(request: TextRequest): void {
    if (this.connection?.isLoggedIn !== true) {
      throw new LinkError('ENOTCONN', 'the session is not logged in');
    }
    this.flow.sendText(request);
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

  /** Bytes of the target in `slab`. What it did wrong ends the connection, not the process. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number, nowMs: number): void {
    const connection = this.connection;
    if (connection === null) return;
    let failure: ProductError | null = null;
    try {
      connection.bytesReceived(slab, buffer, start, end, nowMs);
    } catch (error) {
      failure = productError(error);
    }
    // What was received before the failure counts: it may have been the end of the login.
    if (connection.notices.length > 0) this.#takeNotices(connection, nowMs);
    if (failure === null) this.flow.send(nowMs);
    else if (this.connection === connection) this.#connectionEnded(failure, nowMs);
  }

  /** Does what is due at `nowMs`. */
  timeReached(nowMs: number): void {
    if (nowMs >= this.#loginDeadlineAtMs) this.#timedOut('no login', nowMs);
    if (nowMs >= this.#logoutDeadlineAtMs) this.#timedOut('no answer to the logout', nowMs);
    if (nowMs >= this.#rounds.schedule.attemptAtMs) this.#attempt(nowMs);
    try {
      this.connection?.timeReached(nowMs);
      this.#keepalive?.timeReached(nowMs);
      this.flow.timeReached(nowMs);
    } catch (error) {
      this.#connectionEnded(productError(error), nowMs);
    }
  }

  #timedOut(what: string, nowMs: number): void {
    this.#connectionEnded(new LinkError('ETIMEDOUT', `${what} in time`), nowMs);
  }

  /** Logs out, now: held and running commands come back as `lost`. Allowed in any state. */
  requestLogout(nowMs: number): void {
    if (this.state === 'closed' || this.state === 'loggingOut') return;
    const connection = this.connection;
    this.#rounds.schedule.stop();
    this.#enter('logoutRequested', 'logout requested');
    this.flow.close();
    if (connection?.canLogOut) {
      connection.logout(LogoutReason.closeSession);
      this.#logoutDeadlineAtMs = nowMs + this.timers.logoutTimeoutMs;
    } else if (connection?.state !== 'S6-inLogout') {
      this.#connectionEnded(null, nowMs);
    }
  }

  /** Nothing waits for the session any more: any portal group of the target will do. */
  requestsFailed(): void {
    this.#rounds.requestsFailed();
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
    this.#loginDeadlineAtMs = nowMs + this.timers.loginTimeoutMs;
    const portal = this.portals.current;
    this.connection = new Connection({
      pool: this.#pool,
      login: this.#rounds.attempt(nowMs),
      firstCmdSN: FIRST_CMD_SN,
      cid: LEADING_CID,
      completed: this.completed,
      quirks: this.quirks,
    });
    this.effects.push({ type: 'openLink', portal });
  }

  /**
   * The connection is over: by an error, or by a finished logout (`null`). `time2WaitMs` is what
   * the target said about it; else what was negotiated holds (RFC 7143 §7.5.1 (Timeouts on
   * Transport Exception Events)).
   */
  #connectionEnded(error: ProductError | null, nowMs: number, time2WaitMs?: number): void {
    const connection = this.connection;
    if (this.state === 'closed') return;
    this.connection = null;
    this.#keepalive = null;
    this.#loginDeadlineAtMs = NEVER_MS;
    this.#logoutDeadlineAtMs = NEVER_MS;
    this.flow.close();
    if (connection !== null) {
      const isUnused = connection.parameters !== null && connection.tasks.count === 0;
      if (isUnused) this.#rounds.endedCleanly();
      const end = connection.isLoggedOut ? 'orderly' : 'abrupt';
      connection.linkLost();
      this.effects.push({ type: 'closeLink', end });
    }
    const isStuck = this.#streak.connectionEnded(error, connection?.isUsed === true);
    const { error: broken, connections } = this.#streak;
    if (isStuck && broken !== null)
      this.effects.push({ type: 'stuck', error: broken, connections });
    if (this.state === 'loggingOut') {
      this.#enter('logoutFinished', 'logged out', error ?? undefined);
      return;
    }
    if (this.state === 'loggedIn') {
      const reason = error?.message ?? 'the target asked for it';
      this.#enter('linkLost', reason, error ?? undefined);
      const defaultTime2Wait = connection?.parameters?.defaultTime2Wait ?? 0;
      this.#rounds.outageBegan(nowMs, time2WaitMs ?? defaultTime2Wait * 1000);
      return;
    }
    const failed = this.#rounds.failed(error, nowMs);
    if (!failed.isRoundOver) return;
    if (this.state === 'loggingIn' && this.config.firstLogin === 'once') {
      const reason = failed.error?.message ?? 'the login failed';
      this.#enter('loginGivenUp', reason, failed.error ?? undefined);
    } else {
      this.#rounds.roundEnded(nowMs);
    }
  }

  #takeNotices(connection: Connection, nowMs: number): void {
    for (const notice of connection.notices) {
      if (this.connection !== connection) break;
      try {
        this.#noticed(notice, nowMs);
      } catch (error) {
        this.#connectionEnded(productError(error), nowMs);
      }
    }
    if (connection.notices.length > 0) connection.notices.length = 0;
  }

  #noticed(notice: ConnectionNotice, nowMs: number): void {
    switch (notice.type) {
      case 'done':
        this.#loggedIn(notice, nowMs);
        return;
      case 'redirect':
        this.#redirected(notice, nowMs);
        return;
      case 'logoutAnswered': {
        const { error, time2WaitMs } = logoutOutcome(notice);
        this.#connectionEnded(error, nowMs, time2WaitMs);
        return;
      }
      case 'asyncReceived':
        this.#asyncReceived(notice.message, nowMs);
        return;
      case 'textReceived':
      case 'pingAnswered':
        this.effects.push(notice);
        return;
      case 'rejected':
        this.effects.push(notice);
        this.#rejected(notice, nowMs);
        return;
      case 'taskManagementAnswered':
        this.flow.taskManagementAnswered(notice.initiatorTaskTag, notice.response, nowMs);
        return;
      case 'tasksCleared':
        this.flow.tasksCleared(notice.lun, notice.cmdSN, nowMs);
        return;
    }
  }

  #loggedIn(done: Extract<ConnectionNotice, { type: 'done' }>, nowMs: number): void {
    this.#loginDeadlineAtMs = NEVER_MS;
    this.keys = done.keys;
    this.tsih = done.tsih;
    this.logins += 1;
    const portal = this.#rounds.succeeded(done, { before: this.portal, nowMs });
    this.portal = portal;
    const { connection } = this;
    if (connection !== null) {
      this.#keepalive = new Keepalive(connection, {
        intervalMs: this.timers.noopIntervalMs,
        timeoutMs: this.timers.noopTimeoutMs,
      });
      this.flow.open(connection, nowMs);
    }
    this.#enter('loginSucceeded', `logged in to ${formatPortal(portal)}`);
  }

  #redirected(redirect: Extract<ConnectionNotice, { type: 'redirect' }>, nowMs: number): void {
    this.connection?.linkLost();
    this.connection = null;
    this.effects.push({ type: 'closeLink', end: 'abrupt' });
    if (this.#rounds.redirected(redirect)) {
      this.#attempt(nowMs);
    } else {
      const error = brokenRule('redirect-loop', 'the target redirects without end');
      this.#connectionEnded(error, nowMs);
    }
  }

  /** A rejected request has no other answer (RFC 7143 §7.3 (Usage of Reject PDU in Recovery)). */
  #rejected(rejected: Extract<ConnectionNotice, { type: 'rejected' }>, nowMs: number): void {
    const { opcode, reason, initiatorTaskTag } = rejected;
    if (opcode === RequestOpcode.taskManagement) {
      this.flow.taskManagementAnswered(initiatorTaskTag, FUNCTION_REJECTED, nowMs);
    }
    if (opcode === RequestOpcode.logout) {
      const why = `the target rejected the logout with reason ${reason}`;
      this.#connectionEnded(brokenRule('logout-rejected', why), nowMs);
    }
  }

  #asyncReceived(message: AsyncMessage, nowMs: number): void {
    this.effects.push({ type: 'asyncReceived', message });
    const parameters = this.connection?.parameters;
    if (!parameters) return;
    const { quirks } = this;
    const { taskReporting } = parameters;
    const order = asyncOrderOf(message, { cid: LEADING_CID, taskReporting, quirks });
    switch (order.type) {
      case 'none':
        return;
      case 'logOut':
        this.logOutToReturn(nowMs, order.withinMs);
        return;
      case 'connectionGoes': {
        const why = 'the target said that it drops the connection';
        this.#connectionEnded(new LinkError('ECONNRESET', why), nowMs, order.time2WaitMs);
      }
    }
  }

  /** Logs out, and in again at the current portal; commands wait for the next login. */
  logOutToReturn(nowMs: number, withinMs: number): void {
    const connection = this.connection;
    if (connection === null || this.state !== 'loggedIn' || !connection.canLogOut) return;
    this.flow.pause();
    connection.logout(LogoutReason.closeSession);
    this.#logoutDeadlineAtMs = nowMs + Math.min(this.timers.logoutTimeoutMs, withinMs);
  }
}
