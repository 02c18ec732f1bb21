import { LinkError, ProductError, UsageError } from '../base/errors.js';
import { Budget } from '../bridge/budget.js';
import { whyAnotherDisk } from '../bridge/identity-gate.js';
import { LunUnit } from '../bridge/lun-unit.js';
import { formatPortal } from '../iscsi/portal.js';
import type { SessionEffect } from '../iscsi/session-effect.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import { AttemptReporter } from './attempt-reporter.js';
import type {
  ScsiAnswer,
  ScsiRequest,
  SessionOptions,
  Stack,
  StackEvent,
  StackExport,
  StackHooks,
} from './contract.js';
import { probeDisk } from './disk-probe.js';
import type { LunExporter } from './lun-exporter.js';
import type { Runtime, StackResources } from './runtime.js';
import { SessionHandle, type SessionTarget } from './session-handle.js';

/** Requests all clients of a session may have under way or held. */
const REQUESTS_MAX = 8192;

type EventBody = StackEvent extends infer Event
  ? Event extends StackEvent
    ? Omit<Event, 'time' | 'sessionId'>
    : never
  : never;

/**
 * One session with its disks and what makes them usable, built up and torn down in order. It joins
 * the session's states to the disks: held while away, gone after the removal latency, back after
 * the identity gate.
 */
export class SessionStack implements Stack {
  readonly resources: StackResources;
  readonly closed: Promise<void>;
  readonly execute: (request: ScsiRequest) => Promise<ScsiAnswer>;
  readonly #runtime: Runtime;
  readonly #hooks: StackHooks;
  readonly #options: SessionOptions;
  readonly #handle: SessionHandle;
  readonly #units: LunUnit[] = [];
  readonly #attempts: AttemptReporter;
  readonly #onClosed: () => void | Promise<void>;
  #exporter: LunExporter | null = null;
  #openExporter: () => Promise<void> = async () => {};
  /** Units whose device has been taken away. */
  readonly #removed = new Set<LunUnit>();
  #gateRun = 0;
  #closing: Promise<void> | null = null;
  #settleClosed: { resolve: () => void; reject: (error: unknown) => void };

  constructor(
    runtime: Runtime,
    hooks: StackHooks,
    target: SessionTarget & {
      readonly options: SessionOptions;
      readonly onClosed?: () => void | Promise<void>;
    },
  ) {
    this.#runtime = runtime;
    this.#hooks = hooks;
    this.#options = target.options;
    this.#onClosed = target.onClosed ?? (() => undefined);
    this.resources = {
      ...runtime,
      budget: new Budget({ requestsMax: REQUESTS_MAX, bytesMax: target.options.heldBytesMax }),
    };
    this.#handle = new SessionHandle(runtime, target, target.options);
    this.execute = (request) => this.#handle.execute(request);
    let settle = { resolve: () => {}, reject: (_error: unknown) => {} };
    this.closed = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.closed.catch(() => undefined);
    this.#settleClosed = settle;
    this.#attempts = new AttemptReporter((event) => this.#emit(event));
    this.#handle.listen((effect) => this.#effect(effect));
  }

  get sessionId(): string {
    return this.#handle.sessionId;
  }

  /** The session itself, for what shows it and sets its timers. */
  get handle(): SessionHandle {
    return this.#handle;
  }

  get units(): readonly LunUnit[] {
    return this.#units;
  }

  get exports(): readonly StackExport[] {
    const exporter = this.#exporter;
    return exporter === null ? [] : this.#units.map((unit) => exporter.describe(unit));
  }

  login(signal: AbortSignal): Promise<void> {
    return this.#handle.login(signal);
  }

  useExporter(exporter: LunExporter, opened: () => Promise<void>): void {
    this.#exporter = exporter;
    this.#openExporter = opened;
  }

  /** Makes a disk that was found usable. */
  async addDisk(lun: number, facts: DiskFacts): Promise<void> {
    const unit = new LunUnit({
      lun,
      facts,
      forcedReadOnly: this.#options.readOnly,
      port: this.#handle.initiator,
      pool: this.#runtime.pool,
      clock: this.#runtime.clock,
      onAttention: (attended, attention, words) => this.#attention(attended, attention, words),
      onCongested: () => undefined,
    });
    if (this.#handle.session.state !== 'loggedIn') unit.queue.hold();
    this.#units.push(unit);
    await this.#exporter?.add(unit);
    const device = this.#exporter?.deviceOf(unit);
    if (device !== undefined) this.#emit({ event: 'deviceAttached', lun, device });
  }

  /** The kernel let go of a device without being asked: somebody else disconnected it. */
  deviceLinkLost(unit: LunUnit, reason: string): void {
    if (this.#closing !== null) return;
    this.#emit({ event: 'deviceRemoved', ...this.#place(unit), reason });
    this.#removed.add(unit);
    this.#fail(
      new UsageError(
        `${this.#exporter?.deviceOf(unit) ?? 'the device'} was disconnected: ${reason}`,
        {
          exitCode: 1,
          code: 'ERR_DEVICE_TAKEN',
        },
      ),
    );
  }

  close(options: { readonly force?: boolean } = {}): Promise<void> {
    if (this.#closing !== null && options.force !== true) return this.#closing;
    this.#closing = this.#close(options.force === true);
    return this.#closing;
  }

  async #close(force: boolean): Promise<void> {
    const isAway = this.#handle.session.state !== 'loggedIn';
    try {
      // While the target is away nothing can be written: what is held has to fail.
      if (force || isAway) for (const unit of this.#units) unit.queue.fail('logout');
      await this.#exporter?.close({ force: force || isAway });
    } catch (error) {
      this.#closing = null;
      throw error;
    }
    this.#gateRun += 1;
    for (const unit of this.#units) unit.queue.fail('logged out');
    await this.#handle.logout();
    await this.#onClosed();
    this.#emit({ event: 'closed', reason: 'logged out' });
    this.#settleClosed.resolve();
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
      default:
    }
  }

  #stateChanged(change: Extract<SessionEffect, { type: 'stateChanged' }>): void {
    const { from, to, reason } = change;
    if (to === 'reconnecting' || to === 'loggingOut') {
      this.#gateRun += 1;
      for (const unit of this.#units) if (!this.#removed.has(unit)) unit.queue.hold();
    }
    this.#emit({ event: 'sessionState', from, to, reason });
    switch (to) {
      case 'loggedIn':
        this.#attempts.succeeded();
        if (from !== 'loggingIn') this.#background(this.#passGate());
        return;
      case 'reconnecting':
        // After the commands in flight have come back as lost, so that they are counted.
        setImmediate(() => this.#tellHeld());
        return;
      case 'removed':
        this.#background(this.#removeAll(reason));
        return;
      default:
    }
  }

  #tellHeld(): void {
    for (const unit of this.#units) {
      if (unit.queue.mode !== 'holding') continue;
      const { heldRequests, heldBytes } = unit.queue;
      const place = this.#place(unit);
      this.#emit({ event: 'deviceHeld', ...place, requests: heldRequests, bytes: heldBytes });
    }
  }

  async #removeAll(reason: string): Promise<void> {
    for (const unit of this.#units) await this.#remove(unit, reason);
  }

  async #remove(unit: LunUnit, reason: string): Promise<void> {
    if (this.#removed.has(unit)) return;
    this.#removed.add(unit);
    unit.queue.fail(reason);
    const place = this.#place(unit);
    await this.#exporter?.remove(unit, reason);
    this.#emit({ event: 'deviceRemoved', ...place, reason });
  }

  /** After a new login: each disk has to be the one we knew before anything is sent to it. */
  async #passGate(): Promise<void> {
    this.#gateRun += 1;
    const run = this.#gateRun;
    for (const unit of this.#units) {
      let facts: DiskFacts;
      try {
        facts = await probeDisk(this.execute, unit.lun, (attention) => {
          this.#cacheAttention(unit, attention);
        });
      } catch (error) {
        if (run !== this.#gateRun || error instanceof LinkError) return;
        const why = error instanceof Error ? error.message : String(error);
        await this.#remove(unit, `the LUN does not answer as a disk any more: ${why}`);
        continue;
      }
      if (run !== this.#gateRun) return;
      const why = whyAnotherDisk(unit.facts, facts);
      if (why !== null) {
        await this.#remove(unit, `another disk has this LUN now: ${why}`);
        continue;
      }
      await this.#release(unit, facts, run);
    }
  }

  async #release(unit: LunUnit, facts: DiskFacts, run: number): Promise<void> {
    const grew = facts.blockCount !== unit.facts.blockCount;
    unit.disk.facts = facts;
    unit.queue.release();
    if (this.#removed.has(unit)) {
      try {
        await this.#exporter?.add(unit);
        await this.#openExporter();
      } catch (error) {
        if (run !== this.#gateRun) return;
        const reason = error instanceof Error ? error.message : String(error);
        this.#emit({ event: 'deviceRemoved', ...this.#place(unit), reason });
        return;
      }
      this.#removed.delete(unit);
      this.#emit({ event: 'deviceAttached', ...this.#place(unit) });
      return;
    }
    this.#emit({ event: 'deviceReleased', ...this.#place(unit) });
    if (grew) await this.#resized(unit);
  }

  #cacheAttention(unit: LunUnit, attention: Attention): void {
    if (attention === 'powerOn' || attention === 'reset') unit.disk.cacheMayBeLost();
  }

  #attention(unit: LunUnit, attention: Attention, _words: string): void {
    if (attention !== 'capacityChanged' && attention !== 'modeChanged') return;
    this.#background(this.#refresh(unit));
  }

  /** The disk said that it changed: its facts are read again, and its users told. */
  async #refresh(unit: LunUnit): Promise<void> {
    let facts: DiskFacts;
    try {
      facts = await probeDisk(this.execute, unit.lun, () => undefined);
    } catch (error) {
      if (error instanceof LinkError) return;
      throw error;
    }
    if (whyAnotherDisk(unit.facts, facts) !== null) return;
    const grew = facts.blockCount !== unit.facts.blockCount;
    unit.disk.facts = facts;
    if (grew) await this.#resized(unit);
  }

  async #resized(unit: LunUnit): Promise<void> {
    await this.#exporter?.resized(unit);
    const { sizeBytes } = unit.queue;
    this.#emit({ event: 'deviceResized', ...this.#place(unit), sizeBytes });
  }

  /** Work that nobody waits for; its failure ends the stack, loudly. */
  #background(work: Promise<void>): void {
    work.catch((error: unknown) => {
      const cause = error instanceof ProductError ? error : null;
      if (cause === null || cause.code === 'ERR_INVARIANT') throw error;
      this.#fail(cause);
    });
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

export type { EventBody };
