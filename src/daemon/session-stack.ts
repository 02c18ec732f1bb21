import { type ProductError, UsageError } from '../base/errors.js';
import { Budget } from '../bridge/budget.js';
import { LunUnit } from '../bridge/lun-unit.js';
import { formatPortal } from '../iscsi/portal.js';
import type { SessionEffect } from '../iscsi/session-effect.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import { AttemptReporter } from './attempt-reporter.js';
import { CommandDepth } from './command-depth.js';
import type {
  ScsiAnswer,
  ScsiRequest,
  SessionOptions,
  Stack,
  StackEvent,
  StackExport,
  StackHooks,
} from './contract.js';
import type { Asker } from './disk-probe.js';
import { EXIT_CODES } from './exit-codes.js';
import type { LunClaims } from './lun-claims.js';
import type { LunExporter } from './lun-exporter.js';
import type { Runtime, StackResources } from './runtime.js';
import { SessionHandle, type SessionTarget } from './session-handle.js';
import { newsOf } from './session-news.js';
import { Turns } from './turns.js';
import { UnitLife } from './unit-life.js';

/** Requests all clients of a session may have under way or held. */
const REQUESTS_MAX = 8192;

type EventBody = StackEvent extends infer Event
  ? Event extends StackEvent
    ? Omit<Event, 'time' | 'sessionId'>
    : never
  : never;

/** What outages have cost since the session began. */
export type OutageCounters = {
  /** Times the session was lost. */
  readonly outages: number;
  /** Requests that were held, each time they were. */
  readonly heldRequests: number;
  readonly longestHoldMs: number;
};

/**
 * One session with its disks and what makes them usable, built up and torn down in order. It joins
 * the session's states to the lives of the units (`UnitLife`): held while away, gone after the
 * removal latency, back after the identity gate.
 */
export class SessionStack implements Stack, Asker {
  readonly resources: StackResources;
  readonly closed: Promise<void>;
  readonly #runtime: Runtime;
  readonly #hooks: StackHooks;
  readonly #options: SessionOptions;
  readonly #handle: SessionHandle;
  readonly #lives: UnitLife[] = [];
  /** Lives whose unit has been given to the exporter. */
  readonly #exported = new WeakSet<UnitLife>();
  readonly #onLunsChanged: () => void;
  readonly #turns = new Turns();
  readonly #depth: CommandDepth;
  readonly #attempts: AttemptReporter;
  readonly #claims: LunClaims | undefined;
  readonly #onClosed: () => void | Promise<void>;
  #exporter: LunExporter | null = null;
  #openExporter: () => Promise<void> = async () => {};
  #outages = 0;
  #closing: Promise<void> | null = null;
  #settleClosed: { resolve: () => void; reject: (error: unknown) => void };

  constructor(
    runtime: Runtime,
    hooks: StackHooks,
    target: SessionTarget & {
      readonly options: SessionOptions;
      readonly onClosed?: () => void | Promise<void>;
      /** The right to write to the LUNs; without it nobody is asked. */
      readonly claims?: LunClaims;
      /** The target says that it has other LUNs now; new ones are the caller's to add. */
      readonly onLunsChanged?: () => void;
    },
  ) {
    this.#runtime = runtime;
    this.#hooks = hooks;
    this.#options = target.options;
    this.#claims = target.claims;
    this.#onClosed = target.onClosed ?? (() => undefined);
    this.#onLunsChanged = target.onLunsChanged ?? (() => undefined);
    this.resources = {
      ...runtime,
      budget: new Budget({
        requestsMax: REQUESTS_MAX,
        bytesMax: target.options.heldBytesMax,
        memory: runtime.pool,
      }),
    };
    const { budget } = this.resources;
    this.#handle = new SessionHandle(runtime, target, target.options, () => {
      budget.backlogChanged();
    });
    budget.backlogBytes = () => this.#handle.initiator.backlogBytes;
    this.#depth = new CommandDepth(this.#handle.session, runtime.clock);
    let settle = { resolve: () => {}, reject: (_error: unknown) => {} };
    this.closed = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.closed.catch(() => undefined);
    this.#settleClosed = settle;
    this.#attempts = new AttemptReporter({
      refused: (refusal) => this.#emit({ event: 'loginRefused', ...refusal }),
      failed: (message) => this.#emit({ event: 'warning', message }),
    });
    this.#handle.listen((effect) => this.#effect(effect));
  }

  get sessionId(): string {
    return this.#handle.sessionId;
  }

  /** The session itself, for what shows it and sets its timers. */
  get handle(): SessionHandle {
    return this.#handle;
  }

  /** Group of the portal it is logged in to; undefined while it is not. */
  get portalGroupTag(): number | undefined {
    return this.#handle.session.connection?.parameters?.targetPortalGroupTag ?? undefined;
  }

  get units(): readonly LunUnit[] {
    return this.#lives.map((life) => life.unit);
  }

  get exports(): readonly StackExport[] {
    const exporter = this.#exporter;
    if (exporter === null) return [];
    const there = this.#lives.filter((life) => this.#exported.has(life) && life.isExported);
    return there.map((life) => exporter.describe(life.unit));
  }

  get counters(): OutageCounters {
    const lives = this.#lives;
    return {
      outages: this.#outages,
      heldRequests: lives.reduce((sum, life) => sum + life.unit.queue.heldTotal, 0),
      longestHoldMs: lives.reduce((most, life) => Math.max(most, life.longestHoldMs), 0),
    };
  }

  /** One command over the session as it is now; rejects with LinkError when it is away. */
  execute(request: ScsiRequest): Promise<ScsiAnswer> {
    return this.#handle.send(request);
  }

  pause(ms: number): Promise<void> {
    const { clock } = this.#runtime;
    return new Promise((resolve) => {
      clock.at(clock.nowMs() + ms, resolve);
    });
  }

  /** Throws UsageError 15 when another process has this identity. */
  async login(signal: AbortSignal): Promise<void> {
    await this.#claims?.takeIdentity();
    return this.#handle.login(signal);
  }

  useExporter(exporter: LunExporter, opened: () => Promise<void>): void {
    this.#exporter = exporter;
    this.#openExporter = opened;
  }

  /**
   * Makes a disk that was found usable. Throws UsageError 15 when another session has it, and 2
   * when the session is being closed: what is made then, nobody would take away.
   */
  async addDisk(lun: number, facts: DiskFacts): Promise<void> {
    await this.#claims?.take(lun, this.#handle.initiator.linkAddresses()?.remote ?? null);
    this.#refuseIfClosing();
    const exporter = this.#exporter ?? new NoExporter();
    const life = this.#newLife(lun, facts, exporter);
    const { session } = this.#handle;
    this.#lives.push(life);
    // A new login since the facts were read: they have to be compared first, as in any outage.
    if (session.state !== 'loggedIn' || session.logins > 1) life.hold();
    if (session.state === 'loggedIn' && session.logins > 1) life.look();
    await this.#turns.run(() => {
      this.#refuseIfClosing();
      return exporter.add(life.unit);
    });
    this.#exported.add(life);
    const device = exporter.deviceOf(life.unit);
    if (device !== undefined) this.#emit({ event: 'deviceAttached', lun, device });
  }

  /** Opens what the disks are served on, after the first of them. Throws as `addDisk`. */
  openExports(): Promise<void> {
    return this.#turns.run(() => {
      this.#refuseIfClosing();
      return this.#openExporter();
    });
  }

  /** Looks at every disk again, as after an attention; new ones are the caller's to add. */
  lookAgain(): void {
    for (const life of this.#lives) life.attended('lunsChanged');
  }

  /** Seconds (or Infinity) an outage may last; a running one counts from its beginning. */
  setRemovalLatency(seconds: number): void {
    this.#handle.initiator.with((session) => session.removalLatencyChanged(seconds * 1000));
    for (const life of this.#lives) life.removalLatencyChanged();
  }

  /** Commands in flight at most, while the target takes that many. */
  get queueDepthMax(): number {
    return this.#depth.depthMax;
  }

  setQueueDepthMax(depthMax: number): void {
    this.#depth.limit(depthMax);
  }

  /** The kernel let go of a device without being asked: somebody else disconnected it. */
  deviceLinkLost(unit: LunUnit, reason: string): void {
    if (this.#closing !== null) return;
    const life = this.#lives.find((one) => one.unit === unit);
    life?.end(reason);
    this.#emit({ event: 'deviceRemoved', ...this.#place(unit), reason });
    const device = this.#exporter?.deviceOf(unit) ?? 'the device';
    this.#fail(
      new UsageError(`${device} was disconnected: ${reason}`, {
        exitCode: 1,
        code: 'ERR_DEVICE_TAKEN',
      }),
    );
  }

  close(options: { readonly force?: boolean } = {}): Promise<void> {
    const force = options.force === true;
    if (this.#closing === null) {
      this.#closing = this.#close(force).catch((error: unknown) => {
        this.#closing = null;
        throw error;
      });
    } else if (force) {
      // The close that is under way may be waiting for requests: they end now.
      for (const life of this.#lives) life.unit.queue.fail('logout');
    }
    return this.#closing;
  }

  async #close(force: boolean): Promise<void> {
    const isAway =
      this.#handle.session.state !== 'loggedIn' ||
      this.#lives.some((life) => life.state !== 'serving');
    // While the target is away nothing can be written: what is held has to fail.
    if (force || isAway) for (const life of this.#lives) life.unit.queue.fail('logout');
    await this.#turns.run(async () => {
      await this.#exporter?.close({ force: force || isAway });
      for (const life of this.#lives) life.end('logged out');
    });
    await this.#handle.logout();
    this.#depth.close();
    await this.#claims?.release();
    await this.#onClosed();
    this.#emit({ event: 'closed', reason: 'logged out' });
    this.#settleClosed.resolve();
  }

  #refuseIfClosing(): void {
    if (this.#closing === null) return;
    throw new UsageError(`Session ${this.sessionId} is being logged out.`, {
      exitCode: EXIT_CODES.sessionNotFound.code,
      code: 'ERR_LOGGED_OUT',
    });
  }

  #newLife(lun: number, facts: DiskFacts, exporter: LunExporter): UnitLife {
    const { pool, clock } = this.#runtime;
    const unit = new LunUnit({
      lun,
      facts,
      forcedReadOnly: this.#options.readOnly,
      port: this.#handle.initiator,
      pool,
      clock,
      budget: this.resources.budget,
      onAttention: (_unit, attention) => this.#attention(life, attention),
      onCongested: () => this.#depth.congested(),
      onIoError: (error) => this.#emit({ event: 'ioError', ...error, ...this.#place(unit) }),
    });
    const life: UnitLife = new UnitLife({
      unit,
      asker: this,
      clock,
      turns: this.#turns,
      timers: this.#handle.session.timers,
      exporter: () => exporter,
      openExporter: () => this.#openExporter(),
      tell: (told, news) => this.#emit({ ...news, ...this.#place(told.unit) }),
    });
    return life;
  }

  #fail(error: ProductError): void {
    this.#settleClosed.reject(error);
  }

  #effect(effect: SessionEffect): void {
    switch (effect.type) {
      case 'stateChanged':
        this.#stateChanged(effect);
        return;
      case 'attemptFailed':
        this.#attempts.failed(effect.error);
        return;
      case 'portalChanged':
        this.#emit({
          event: 'portalChanged',
          from: formatPortal(effect.from),
          to: formatPortal(effect.to),
        });
        return;
      default: {
        const message = newsOf(effect);
        if (message !== null) this.#emit({ event: 'warning', message });
      }
    }
  }

  /** Told before the commands that were in flight come back, so that they are held. */
  #stateChanged(change: Extract<SessionEffect, { type: 'stateChanged' }>): void {
    const { from, to, reason } = change;
    if (to === 'reconnecting' || to === 'loggingOut' || to === 'closed') {
      for (const life of this.#lives) life.hold();
    }
    this.#emit({ event: 'sessionState', from, to, reason });
    switch (to) {
      case 'loggedIn':
        this.#attempts.succeeded();
        for (const life of this.#lives) life.look();
        return;
      case 'reconnecting':
        this.#outages += 1;
        this.#handle.whenSettled(() => {
          for (const life of this.#lives) life.tellHeld();
        });
        return;
      case 'removed':
        for (const life of this.#lives) life.remove(reason);
        return;
      default:
    }
  }

  /** LUNs that have changed may all be other disks; the rest is about one unit. */
  #attention(attended: UnitLife, attention: Attention): void {
    const lives = attention === 'lunsChanged' ? this.#lives : [attended];
    for (const life of lives) life.attended(attention);
    if (attention === 'lunsChanged') this.#onLunsChanged();
  }

  #place(unit: LunUnit): { lun: number; device?: string } {
    const device = this.#exporter?.deviceOf(unit);
    return device === undefined ? { lun: unit.lun } : { lun: unit.lun, device };
  }

  #emit(body: EventBody): void {
    const time = new Date().toISOString();
    this.#hooks.onEvent({ ...body, time, sessionId: this.sessionId } as StackEvent);
  }
}

/** Stands in where the units have no users outside this process. */
class NoExporter implements LunExporter {
  async add(): Promise<void> {}
  async remove(): Promise<void> {}
  async resized(): Promise<void> {}
  async close(): Promise<void> {}
  describe(unit: LunUnit): StackExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }
  deviceOf(): undefined {
    return undefined;
  }
}
