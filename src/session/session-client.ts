import { randomBytes } from 'node:crypto';
import { LinkError, ProductError } from '../base/errors.js';
import { Fragments } from '../base/fragments.js';
import { fragmentsOf } from '../base/slab-writer.js';
import { LunFields } from '../bridge/lun-fields.js';
import type { ScsiAnswer, ScsiRequest, SessionOptions, SessionState } from '../config/contract.js';
import { SessionDriver } from '../io/session-driver.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { TextRequest, TextResponse } from '../iscsi/pdu/login-pdu.js';
import { RequestOpcode } from '../iscsi/pdu/pdu.js';
import type { TextPair } from '../iscsi/pdu/text.js';
import { brokenRule } from '../iscsi/quirks/quirks.js';
import { Session } from '../iscsi/session/session.js';
import type { SessionEffect } from '../iscsi/session/session-effect.js';
import { TextExchange } from '../iscsi/session/text-exchange.js';
import type { AttentionHandler } from '../lun/disk-probe.js';
import type { Runtime } from '../lun/runtime.js';
import { ScsiCommand } from '../scsi/command.js';
import { lunEquals } from '../scsi/lun.js';
import { ScsiStatus } from '../scsi/status.js';
import { verdictOfReply } from '../scsi/verdict.js';
import { PassthroughQueue } from './passthrough-queue.js';
import { type SessionTarget, sessionConfig } from './protocol-config.js';
import type { SessionEvent } from './session-event.js';
import { SessionOutage } from './session-outage.js';

/** A command with parameters for the target. */
export type ScsiOrder = {
  readonly lun: number;
  readonly cdb: Buffer;
  readonly parameters: Buffer;
};

const REPORT_LUNS = 0xa0;
/**
 * A caller that has requested the end does not wait longer for the target's answer to the logout.
 */
const HURRIED_LOGOUT_MS = 500;

/** A session with promises: for the control path. The data path uses `initiator` itself. */
export class SessionClient {
  readonly session: Session;
  readonly initiator: SessionDriver;
  readonly lunFields = new LunFields();
  /** Infinity: devices are never removed. Set it by `setRemovalLatency`. */
  readonly removalTimers: { removalLatencyMs: number };
  readonly #runtime: Runtime;
  readonly #outage: SessionOutage;
  readonly #listeners: ((event: SessionEvent) => void)[] = [];
  readonly #control: PassthroughQueue;
  readonly #afterSettling: (() => void)[] = [];
  readonly #taskTimeoutMs: number;
  readonly #loginTimeoutMs: number;
  #trouble: ProductError | null = null;
  /** Told before REPORT LUNS is sent, and when it has been answered. */
  onReportLuns: (is: 'sent' | 'answered') => void = () => undefined;
  /**
   * Told of every attention that a command of `send` meets, before its asker is: a unit attention
   * is reported once (SAM-5 §5.14), and whichever command meets it, it is the logical unit's.
   */
  onAttention: (lun: number, ...met: Parameters<AttentionHandler>) => void = () => undefined;
  /** True while requests of a disk wait for the session. */
  isSomeHeld: () => boolean = () => false;
  /**
   * Its disks have other paths: requests for them wait for no session, and what old sessions
   * have left is the business of the fence (`FenceProof`).
   */
  isOnePath = false;
  #textWaiter: ((answer: SessionEffect | Error) => void) | null = null;
  readonly #pings = new Map<number, { sentAtMs: number; done: (ms: number | null) => void }>();

  constructor(
    runtime: Runtime,
    target: SessionTarget,
    options: SessionOptions,
    onAllSent: () => void = () => undefined,
  ) {
    this.#runtime = runtime;
    this.#taskTimeoutMs = options.taskTimeoutSeconds * 1000;
    this.#loginTimeoutMs = options.loginTimeoutSeconds * 1000;
    this.session = new Session({
      identity: target.identity,
      config: sessionConfig(target, options),
      pool: runtime.pool,
    });
    this.initiator = new SessionDriver({
      session: this.session,
      openLink: runtime.openLink,
      flushes: runtime.flushes,
      clock: runtime.clock,
      onEffect: (effect) => this.#effect(effect),
      onSettled: () => this.#settled(),
      onAllSent,
    });
    this.removalTimers = { removalLatencyMs: options.removalLatencySeconds * 1000 };
    this.#outage = new SessionOutage({
      clock: runtime.clock,
      timers: this.removalTimers,
      isSomeHeld: () => this.isOnePath || this.isSomeHeld(),
      onRemoved: (event) => {
        this.initiator.dispatch((session) => session.requestsFailed());
        this.#emit(event);
      },
    });
    this.#control = new PassthroughQueue({
      send: (request) => this.send(request),
      state: () => this.state,
      stuckOn: () => this.session.stuckOn,
      clock: runtime.clock,
      patienceMs: () => this.patienceMs,
      trouble: () => this.#trouble,
    });
  }

  /** How long a question may wait over all reconnects; Infinity where devices are never removed. */
  get patienceMs(): number {
    return this.#loginTimeoutMs + this.removalTimers.removalLatencyMs;
  }

  /** What has gone wrong last between this host and the target; null again after an answer. */
  get trouble(): ProductError | null {
    return this.#trouble;
  }

  /** As users see it. */
  get state(): SessionState {
    return this.#outage.view(this.session.state);
  }

  /** Instant at which the session counts as removed; Infinity while that is not due. */
  get removalAtMs(): number {
    // Its disks are removed when no path is left, and they know when.
    return this.isOnePath ? Infinity : this.#outage.removalAtMs;
  }

  /** Seconds, or Infinity; an outage that runs counts from its beginning. */
  setRemovalLatency(seconds: number): void {
    this.removalTimers.removalLatencyMs = seconds * 1000;
    this.#outage.removalLatencyChanged();
  }

  /** No request of a disk waits any more. */
  lunRemoved(): void {
    this.#outage.lunRemoved();
  }

  /** Address that it is connected to; null while it is not. */
  get remote(): PortalAddress | null {
    return this.initiator.linkAddresses()?.remote ?? null;
  }

  get sessionId(): string {
    return this.session.identity.sessionId;
  }

  /** Hears every event from now on; the returned function ends that. */
  listen(listener: (event: SessionEvent) => void): () => void {
    this.#listeners.push(listener);
    return () => {
      const at = this.#listeners.indexOf(listener);
      if (at >= 0) this.#listeners.splice(at, 1);
    };
  }

  /** Logs in. Rejects with the reason when it is given up, or when `signal` aborts. */
  login(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        unlisten();
        this.initiator.dispatch((session, nowMs) => session.requestLogout(nowMs));
        reject(signal.reason);
      };
      const unlisten = this.listen((effect) => {
        if (effect.type !== 'stateChanged') return;
        signal.removeEventListener('abort', stop);
        unlisten();
        if (effect.to === 'loggedIn') resolve();
        else reject(effect.error ?? new LinkError('ECONNABORTED', effect.reason));
      });
      if (signal.aborted) {
        unlisten();
        reject(signal.reason);
        return;
      }
      signal.addEventListener('abort', stop, { once: true });
      this.initiator.start();
    });
  }

  /** One command with a small answer; while the session is away, as PassthroughQueue tells. */
  execute(request: ScsiRequest): Promise<ScsiAnswer> {
    return this.#control.execute(request);
  }

  /**
   * Runs `action` once the effects being told, and the commands they end, have all been handled.
   */
  whenSettled(action: () => void): void {
    this.#afterSettling.push(action);
  }

  /**
   * One command over the session as it is now; `onSent` is called when it leaves for the target.
   * Rejects with LinkError when the session is away or the link goes before the answer, and with
   * ERR_COMMAND when the target could not take it.
   */
  send(request: ScsiRequest, onSent: (() => void) | null = null): Promise<ScsiAnswer> {
    if (request.cdb[0] !== REPORT_LUNS) return this.#send(request, onSent);
    this.onReportLuns('sent');
    return this.#send(request, onSent).then((answer) => {
      this.onReportLuns('answered');
      return answer;
    });
  }

  /** One command with a list of parameters for the target, as `send`. */
  order(order: ScsiOrder): Promise<ScsiAnswer> {
    return this.#send({ ...order, direction: 'none', length: 0 }, null, order.parameters);
  }

  #send(
    request: ScsiRequest,
    onSent: (() => void) | null,
    parameters: Buffer | null = null,
  ): Promise<ScsiAnswer> {
    return new Promise((resolve, reject) => {
      const command = new ScsiCommand(
        { scsiCommandDone: (done) => finish(done) },
        new Fragments(this.#runtime.pool),
      );
      const finish = (done: ScsiCommand) => {
        const data = done.dataIn.toBuffer();
        done.dataIn.clear();
        done.dataOut?.clear();
        if (done.outcome === 'answered') {
          this.#trouble = null;
          const sense = Buffer.from(done.sense.subarray(0, done.senseLength));
          this.#noteAttention(request.lun, done, sense);
          resolve({ status: done.status, data, sense });
        } else if (done.outcome === 'failed') {
          reject(
            new ProductError('ERR_COMMAND', `the target failed the command (${done.response})`),
          );
        } else {
          reject(this.#lost());
        }
      };
      command.prepare(request.direction, request.length);
      if (parameters !== null) {
        command.prepare('write', parameters.length);
        command.dataOut = fragmentsOf(parameters, this.#runtime.pool);
      }
      request.cdb.copy(command.cdb, 0, 0, Math.min(16, request.cdb.length));
      command.lun = request.field ?? this.lunFields.fieldOf(request.lun);
      command.isControl = true;
      command.onSent = onSent;
      this.initiator.submit(command);
    });
  }

  /** One NOP-Out with `bytes` bytes of data; resolves to the round trip in milliseconds. */
  ping(bytes: number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.session.connection?.isLoggedIn !== true) {
        reject(new LinkError('ENOTCONN', 'the session is not logged in'));
        return;
      }
      const sentAtMs = this.#runtime.clock.nowMs();
      const tag = this.initiator.dispatch((session) => session.ping(randomBytes(bytes)));
      this.#pings.set(tag, {
        sentAtMs,
        done: (ms) => {
          if (ms === null) reject(this.#lost());
          else resolve(ms);
        },
      });
    });
  }

  /** A question that was under way when the connection ended. */
  #lost(): LinkError {
    const cause = this.#trouble;
    const why = cause === null ? '' : `: ${cause.message}`;
    const message = `the connection went before the answer${why}`;
    return new LinkError('ECONNRESET', message, cause === null ? {} : { cause });
  }

  /** A text negotiation in the full feature phase (RFC 7143 §11.10 (Text Request)). */
  async text(pairs: readonly TextPair[]): Promise<readonly TextPair[]> {
    const parameters = this.session.connection?.parameters;
    if (!parameters) throw new LinkError('ENOTCONN', 'the session is not logged in');
    const exchange = new TextExchange({
      pairs,
      initiatorTaskTag: this.session.nextControlTag(),
      targetMaxRecvDataSegmentLength: parameters.targetMaxRecvDataSegmentLength,
      quirks: this.session.quirks,
    });
    let request = exchange.start();
    for (;;) {
      const step = exchange.responseReceived(await this.#textAnswer(request));
      if (step.type === 'done') return step.pairs;
      request = step.request;
    }
  }

  async #textAnswer(request: TextRequest): Promise<TextResponse> {
    const { clock } = this.#runtime;
    const answer = await new Promise<SessionEffect | Error>((resolve) => {
      const cancel = clock.at(clock.nowMs() + this.#taskTimeoutMs, () =>
        this.#textWaiter?.(new LinkError('ETIME', 'the target did not answer a text request')),
      );
      this.#textWaiter = (told) => {
        this.#textWaiter = null;
        cancel();
        resolve(told);
      };
      try {
        this.initiator.dispatch((session) => session.sendText(request));
      } catch (error) {
        this.#textWaiter?.(error instanceof Error ? error : new Error(String(error)));
      }
    });
    if (answer instanceof Error) throw answer;
    if (answer.type === 'textReceived') return answer.response;
    const reason = answer.type === 'rejected' ? ` with reason ${answer.reason}` : '';
    throw brokenRule('text-rejected', `the target rejected the text request${reason}`);
  }

  /** Before an end that a signal has requested, while nothing is served yet. */
  hurryLogout(): void {
    const { timers } = this.session;
    timers.logoutTimeoutMs = Math.min(timers.logoutTimeoutMs, HURRIED_LOGOUT_MS);
  }

  /** Logs out in order, whatever the state is; resolves when the session is closed. */
  logout(): Promise<void> {
    return new Promise((resolve) => {
      if (this.session.state === 'closed') {
        resolve();
        return;
      }
      const unlisten = this.listen((effect) => {
        if (effect.type !== 'stateChanged' || effect.to !== 'closed') return;
        unlisten();
        resolve();
      });
      this.initiator.dispatch((session, nowMs) => session.requestLogout(nowMs));
    });
  }

  #effect(effect: SessionEffect): void {
    if (effect.type === 'textReceived') this.#textWaiter?.(effect);
    if (effect.type === 'rejected') {
      if (effect.opcode === RequestOpcode.text) this.#textWaiter?.(effect);
      this.#pings.get(effect.initiatorTaskTag)?.done(null);
      this.#pings.delete(effect.initiatorTaskTag);
    }
    if (effect.type === 'attemptFailed') this.#groupRefused(effect.error);
    if (effect.type === 'stuck') this.#control.stuck(effect.error);
    if (effect.type === 'pingAnswered') this.#pingAnswered(effect.initiatorTaskTag);
    if (effect.type === 'attemptFailed') this.#trouble = effect.error;
    // The state after the link has gone says why.
    if (effect.type === 'stateChanged' && effect.to !== 'loggedIn' && effect.to !== 'loggingOut') {
      this.#trouble = effect.error ?? this.#trouble;
      this.#textWaiter?.(this.#lost());
      for (const ping of this.#pings.values()) ping.done(null);
      this.#pings.clear();
    }
    this.#emit(effect.type === 'stateChanged' ? this.#outage.stateChanged(effect) : effect);
  }

  #emit(event: SessionEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
    if (event.type === 'stateChanged') this.#control.stateChanged(event.to);
  }

  /** A portal of another group is refused for waiting requests; with nothing waiting it will do. */
  #groupRefused(error: ProductError): void {
    if (error.code !== 'ERR_PORTAL_GROUP' || (!this.isOnePath && this.isSomeHeld())) return;
    this.whenSettled(() => this.initiator.dispatch((session) => session.requestsFailed()));
  }

  #noteAttention(lun: number, done: ScsiCommand, sense: Buffer): void {
    const { status } = done;
    // REPORT LUNS goes to a field of its own, which may be another unit than that of LUN 0.
    if (status === ScsiStatus.good || !lunEquals(done.lun, this.lunFields.fieldOf(lun))) return;
    const { attention, action } = verdictOfReply({ status, sense });
    if (attention !== null) this.onAttention(lun, attention, action);
  }

  #settled(): void {
    for (const action of this.#afterSettling.splice(0)) action();
  }

  #pingAnswered(tag: number): void {
    const ping = this.#pings.get(tag);
    this.#pings.delete(tag);
    ping?.done(this.#runtime.clock.nowMs() - ping.sentAtMs);
  }
}
