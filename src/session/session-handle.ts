import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { LinkError, ProductError, ProtocolError, UsageError } from '../base/errors.js';
import { Fragments } from '../base/fragments.js';
import { LunFields } from '../bridge/lun-fields.js';
import type { ScsiAnswer, ScsiRequest, SessionOptions } from '../config/contract.js';
import { Initiator } from '../io/initiator.js';
import { ChallengeMemory } from '../iscsi/login/chap.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { TextRequest, TextResponse } from '../iscsi/pdu/login-pdu.js';
import { RequestOpcode } from '../iscsi/pdu/pdu.js';
import type { TextPair } from '../iscsi/pdu/text.js';
import { TextExchange } from '../iscsi/session/discovery.js';
import { Session } from '../iscsi/session/session.js';
import type {
  SessionConfig,
  SessionIdentity,
  SessionType,
} from '../iscsi/session/session-config.js';
import type { SessionEffect } from '../iscsi/session/session-effect.js';
import type { AttentionHandler } from '../lun/disk-probe.js';
import type { Runtime } from '../lun/runtime.js';
import { ScsiCommand } from '../scsi/command.js';
import { lunEquals } from '../scsi/lun.js';
import { parseSense } from '../scsi/sense.js';
import { ScsiStatus } from '../scsi/status.js';
import { verdictOf } from '../scsi/verdict.js';
import { ControlPath } from './control-path.js';

export type SessionTarget = {
  readonly type: SessionType;
  readonly targetName?: string;
  readonly portals: readonly PortalAddress[];
  readonly identity: SessionIdentity;
  readonly firstLogin: SessionConfig['firstLogin'];
};

/** Longest wait for the answer to our logout; a target that is gone must not hold us up. */
const LOGOUT_TIMEOUT_MS = 3000;
const REPORT_LUNS = 0xa0;

/**
 * The CHAP challenges of all sessions of this process: one of ours that comes back on any
 * connection is a reflection (RFC 7143 §9.2.1 (CHAP Considerations)).
 */
const CHALLENGES = new ChallengeMemory();

/** A session with promises: for the control path. The data path uses `initiator` itself. */
export class SessionHandle {
  readonly session: Session;
  readonly initiator: Initiator;
  readonly lunFields = new LunFields();
  readonly #runtime: Runtime;
  readonly #listeners: ((effect: SessionEffect) => void)[] = [];
  readonly #control: ControlPath;
  readonly #afterSettling: (() => void)[] = [];
  readonly #taskTimeoutMs: number;
  /** Told before REPORT LUNS is sent, and when it has been answered. */
  onReportLuns: (is: 'sent' | 'answered') => void = () => undefined;
  /**
   * Told of every attention that a command of `send` meets, before its asker is: a unit attention
   * is reported once (SAM-5 §5.14), and whoever meets it, it is the logical unit's.
   */
  onAttention: (lun: number, ...met: Parameters<AttentionHandler>) => void = () => undefined;
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
    this.session = new Session({
      identity: target.identity,
      config: sessionConfig(target, options),
      pool: runtime.pool,
    });
    this.initiator = new Initiator({
      session: this.session,
      openLink: runtime.openLink,
      flushes: runtime.flushes,
      clock: runtime.clock,
      onEffect: (effect) => this.#effect(effect),
      onSettled: () => this.#settled(),
      onAllSent,
    });
    this.#control = new ControlPath({
      send: (request) => this.send(request),
      state: () => this.session.state,
    });
  }

  get sessionId(): string {
    return this.session.identity.sessionId;
  }

  /** Hears every effect from now on; the returned function ends that. */
  listen(listener: (effect: SessionEffect) => void): () => void {
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
        this.initiator.with((session, nowMs) => session.requestLogout(nowMs));
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

  /** One command with a small answer; while the session is away, as ControlPath tells. */
  execute(request: ScsiRequest): Promise<ScsiAnswer> {
    return this.#control.execute(request);
  }

  /** Runs `action` once the effects being told, and the commands they end, have all been told. */
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

  #send(request: ScsiRequest, onSent: (() => void) | null): Promise<ScsiAnswer> {
    return new Promise((resolve, reject) => {
      const command = new ScsiCommand(
        { scsiCommandDone: (done) => finish(done) },
        new Fragments(this.#runtime.pool),
      );
      const finish = (done: ScsiCommand) => {
        const data = done.dataIn.toBuffer();
        done.dataIn.clear();
        if (done.outcome === 'answered') {
          const sense = Buffer.from(done.sense.subarray(0, done.senseLength));
          this.#noteAttention(request.lun, done, sense);
          resolve({ status: done.status, data, sense });
        } else if (done.outcome === 'failed') {
          reject(
            new ProductError('ERR_COMMAND', `the target failed the command (${done.response})`),
          );
        } else {
          reject(new LinkError('ECONNRESET', 'the connection went before the answer'));
        }
      };
      command.prepare(request.direction, request.length);
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
      const tag = this.initiator.with((session) => session.ping(randomBytes(bytes)));
      this.#pings.set(tag, {
        sentAtMs,
        done: (ms) => {
          if (ms === null)
            reject(new LinkError('ECONNRESET', 'the connection went before the answer'));
          else resolve(ms);
        },
      });
    });
  }

  /** A text negotiation in the full feature phase (RFC 7143 §11.10 (Text Request)). */
  async text(pairs: readonly TextPair[]): Promise<readonly TextPair[]> {
    const parameters = this.session.connection?.parameters;
    if (!parameters) throw new LinkError('ENOTCONN', 'the session is not logged in');
    const exchange = new TextExchange({
      pairs,
      initiatorTaskTag: this.session.nextControlTag(),
      targetMaxRecvDataSegmentLength: parameters.targetMaxRecvDataSegmentLength,
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
        this.initiator.with((session) => session.sendText(request));
      } catch (error) {
        this.#textWaiter?.(error instanceof Error ? error : new Error(String(error)));
      }
    });
    if (answer instanceof Error) throw answer;
    if (answer.type === 'textReceived') return answer.response;
    const reason = answer.type === 'rejected' ? ` with reason ${answer.reason}` : '';
    throw new ProtocolError('7.12', `the target rejected the text request${reason}`);
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
      this.initiator.with((session, nowMs) => session.requestLogout(nowMs));
    });
  }

  #effect(effect: SessionEffect): void {
    if (effect.type === 'textReceived') this.#textWaiter?.(effect);
    if (effect.type === 'rejected') {
      if (effect.opcode === RequestOpcode.text) this.#textWaiter?.(effect);
      this.#pings.get(effect.initiatorTaskTag)?.done(null);
      this.#pings.delete(effect.initiatorTaskTag);
    }
    if (effect.type === 'pingAnswered') this.#pingAnswered(effect.initiatorTaskTag);
    if (effect.type === 'closeLink') {
      this.#textWaiter?.(new LinkError('ECONNRESET', 'the connection went before the answer'));
      for (const ping of this.#pings.values()) ping.done(null);
      this.#pings.clear();
    }
    for (const listener of [...this.#listeners]) listener(effect);
    if (effect.type === 'stateChanged') this.#control.stateChanged(effect.to);
  }

  #noteAttention(lun: number, done: ScsiCommand, sense: Buffer): void {
    const { status } = done;
    // REPORT LUNS goes to a field of its own, which may be another unit than that of LUN 0.
    if (status === ScsiStatus.good || !lunEquals(done.lun, this.lunFields.fieldOf(lun))) return;
    const { attention, action } = verdictOf(status, sense.length > 0 ? parseSense(sense) : null);
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

function sessionConfig(target: SessionTarget, options: SessionOptions): SessionConfig {
  if (options.maxConnections !== 1 || options.errorRecoveryLevel !== 0) {
    throw new UsageError(
      'this version has one connection a session and error recovery level 0: ' +
        'set --max-connections 1 and --error-recovery-level 0, or leave them out',
      { exitCode: 27 },
    );
  }
  const seconds = (value: number) => value * 1000;
  return {
    type: target.type,
    portals: target.portals,
    queueDepthMax: options.queueDepthMax,
    firstLogin: target.firstLogin,
    timers: {
      reconnectIntervalMs: seconds(options.reconnectIntervalSeconds),
      loginTimeoutMs: seconds(options.loginTimeoutSeconds),
      noopIntervalMs: seconds(options.noopIntervalSeconds),
      noopTimeoutMs: seconds(options.noopTimeoutSeconds),
      removalLatencyMs: seconds(options.removalLatencySeconds),
      taskTimeoutMs: seconds(options.taskTimeoutSeconds),
      abortTimeoutMs: seconds(options.abortTimeoutSeconds),
      logicalUnitResetTimeoutMs: seconds(options.logicalUnitResetTimeoutSeconds),
      logoutTimeoutMs: LOGOUT_TIMEOUT_MS,
    },
    login: {
      initiatorName: options.initiatorName,
      initiatorAlias: hostname(),
      ...(target.targetName === undefined ? {} : { targetName: target.targetName }),
      ...chapOf(options),
      offer: {
        headerDigest: options.headerDigest,
        dataDigest: options.dataDigest,
        maxConnections: 1,
        initialR2T: options.initialR2T,
        immediateData: options.immediateData,
        maxRecvDataSegmentLength: options.maxRecvDataSegmentLength,
        maxBurstLength: options.maxBurstLength,
        firstBurstLength: Math.min(options.firstBurstLength, options.maxBurstLength),
        maxOutstandingR2T: options.maxOutstandingR2T,
        // Zero lets the target alone say how long to wait: the result is the larger of the two.
        defaultTime2Wait: 0,
        defaultTime2Retain: 20,
        errorRecoveryLevel: 0,
        // With one connection responses are in order anyway, so a fence costs nothing.
        taskReporting: ['ResponseFence', 'RFC3720'],
        protocolLevel: 1,
      },
      randomBytes,
    },
  };
}

function chapOf(options: SessionOptions) {
  const { chap } = options;
  if (chap === undefined) return {};
  const target =
    chap.target === undefined
      ? {}
      : { target: { ...chap.target, secret: Buffer.from(chap.target.secret) } };
  return {
    chap: {
      user: chap.user,
      secret: Buffer.from(chap.secret),
      algorithms: options.chapAlgorithms,
      memory: CHALLENGES,
      ...target,
    },
  };
}
