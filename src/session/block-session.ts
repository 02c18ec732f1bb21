import { pause } from '../base/clock.js';
import { deferred } from '../base/deferred.js';
import { UsageError } from '../base/errors.js';
import { SerialQueue } from '../base/serial-queue.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { LunFields } from '../bridge/lun-fields.js';
import type {
  EventBody,
  LunExport,
  OpenSession,
  ScsiAnswer,
  ScsiRequest,
  SessionHooks,
  SessionOptions,
} from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { type ScsiExecutor, testUnitReady } from '../lun/disk-probe.js';
import { diskWarnings } from '../lun/disk-warnings.js';
import type { LunExporter } from '../lun/lun-exporter.js';
import type { LunLifecycle } from '../lun/lun-lifecycle.js';
import { LunLifecycles } from '../lun/lun-lifecycles.js';
import { NoExporter } from '../lun/no-exporter.js';
import type { Runtime, SessionResources } from '../lun/runtime.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { AttemptReporter } from './attempt-reporter.js';
import type { BlockSessionOptions, OutageCounters } from './block-session-options.js';
import { newLifecycle } from './new-lifecycle.js';
import { PathSources } from './paths/path-sources.js';
import type { SessionPaths } from './paths/session-paths.js';
import type { SessionTarget } from './protocol-config.js';
import { QueueDepthDriver } from './queue-depth-driver.js';
import { SessionClient } from './session-client.js';
import type { SessionEvent } from './session-event.js';
import { resourcesOf } from './session-resources.js';
import { stampedEvent } from './stamped-event.js';
import { eventOf } from './warning-text.js';

/**
 * One session with its disks and what makes them usable, built up and torn down in order. What
 * happens to the session it passes on to the lifecycle of each LUN, which decides what becomes of
 * its requests.
 */
export class BlockSession implements OpenSession, ScsiExecutor {
  readonly resources: SessionResources;
  readonly closed: Promise<void>;
  readonly lunFields: LunFields;
  readonly #runtime: Runtime;
  readonly #hooks: SessionHooks;
  readonly #options: SessionOptions;
  readonly #handle: SessionClient;
  readonly #luns: LunLifecycles;
  /** LUNs that have been given to the exporter. */
  readonly #exported = new WeakSet<LunLifecycle>();
  readonly #turns = new SerialQueue();
  readonly #depth: QueueDepthDriver;
  readonly #attempts: AttemptReporter;
  readonly pathSources: PathSources;
  readonly #paths: SessionPaths;
  readonly #setup: SessionTarget & BlockSessionOptions;
  #exporter: LunExporter | null = null;
  #openExporter: () => Promise<void> = async () => {};
  #outages = 0;
  /** The connection that was there last has ended with a logout that the target has answered. */
  #isLoggedOut = false;
  #closing: Promise<void> | null = null;
  /** The close under way must not wait for anything. */
  readonly #forcing = new AbortController();
  readonly #whenClosed = deferred<void>();

  constructor(runtime: Runtime, hooks: SessionHooks, target: SessionTarget & BlockSessionOptions) {
    this.#runtime = runtime;
    this.#luns = new LunLifecycles(runtime.clock);
    this.#hooks = hooks;
    this.#options = target.options;
    this.#setup = target;
    this.resources = resourcesOf(runtime, target.options);
    const { budget } = this.resources;
    this.#handle = new SessionClient(runtime, target, target.options, () => {
      budget.backlogChanged();
    });
    this.lunFields = this.#handle.lunFields;
    this.lunFields.onLeftOut = (message) => this.#emit({ event: 'warning', message });
    budget.backlogBytes = () => this.#handle.initiator.backlogBytes;
    this.#depth = new QueueDepthDriver(this.#handle.session, runtime.clock);
    this.closed = this.#whenClosed.promise;
    this.#attempts = new AttemptReporter({
      refused: (refusal) => this.#emit({ event: 'loginRefused', ...refusal }),
      failed: (message) => this.#emit({ event: 'warning', message }),
    });
    this.#handle.listen((event) => this.#heard(event));
    this.#handle.isSomeHeld = () => this.#luns.isSomeHeld;
    this.#handle.onReportLuns = (is) =>
      this.#luns.lunsReported(is, (lun) => this.execute(testUnitReady(lun)));
    this.pathSources = new PathSources({
      runtime,
      setup: target,
      leader: this.#handle,
      luns: this.#luns,
      depth: this.#depth,
      changed: () => void this.#turns.run(async () => this.#exporter?.pathsChanged?.()),
      isClosing: () => this.#closing !== null,
      emit: (sessionId, body) => this.#hooks.onEvent(stampedEvent(body, sessionId)),
    });
    this.#paths = this.pathSources.paths;
  }

  get sessionId(): string {
    return this.#handle.sessionId;
  }

  /** The session itself, for what shows it and sets its timers. */
  get handle(): SessionClient {
    return this.#handle;
  }

  /** Group of the portal it is logged in to; undefined while it is not. */
  get portalGroupTag(): number | undefined {
    return this.#handle.session.connection?.parameters?.targetPortalGroupTag ?? undefined;
  }

  /** The sessions over several portals; null if there is one. */
  get paths(): SessionPaths | null {
    return this.#paths.members.length > 1 ? this.#paths : null;
  }

  get units(): readonly LogicalUnit[] {
    return this.#luns.all.map(({ unit }) => unit);
  }

  /** The LUNs that are served, or were, in the order in which they were added. */
  get luns(): readonly LunLifecycle[] {
    return this.#luns.all;
  }

  get exports(): readonly LunExport[] {
    const exporter = this.#exporter;
    if (exporter === null) return [];
    const there = this.#luns.all.filter((lun) => this.#exported.has(lun) && lun.isExported);
    return there.map(({ unit }) => exporter.describe(unit));
  }

  get counters(): OutageCounters {
    const { heldRequestsTotal, longestHoldMs } = this.#luns;
    return { outages: this.#outages, heldRequests: heldRequestsTotal, longestHoldMs };
  }

  /** One command over the session as it is now; rejects with LinkError when it is away. */
  execute(request: ScsiRequest, onSent?: () => void): Promise<ScsiAnswer> {
    return this.#paths.send(request, onSent);
  }

  pause(ms: number): Promise<void> {
    return pause(this.#runtime.clock, ms);
  }

  /** Throws UsageError 15 when another process has this identity. */
  async login(signal: AbortSignal): Promise<void> {
    await this.#setup.claims?.takeIdentity();
    await this.#handle.login(signal);
    await this.pathSources.open();
  }

  /** Goes on with the session of a process before this one, whose disks have been added. */
  resume(): void {
    this.#paths.start();
    this.#handle.initiator.start();
  }

  useExporter(exporter: LunExporter, opened: () => Promise<void>): void {
    this.#exporter = exporter;
    this.#openExporter = opened;
  }

  /**
   * Makes a disk that was found usable. Throws UsageError 15 when another session has it, and 2
   * when the session is being closed: what is made then would not be removed. `field` is that
   * of a record, where it has one.
   */
  async addDisk(lun: number, facts: DiskFacts, field?: string): Promise<void> {
    this.lunFields.fix(lun, field);
    await this.#setup.claims?.take(lun, this.#handle.remote);
    await this.#setup.claims?.takeUnit(lun, facts);
    this.#refuseIfClosing();
    const exporter = this.#exporter ?? new NoExporter();
    const lifecycle = this.#newLifecycle(lun, facts, exporter);
    this.#luns.add(lifecycle);
    // A new login since the facts were read: they have to be compared first, as in any outage.
    const isFound = this.#isLoggedIn && this.#handle.session.logins <= 1;
    if (!isFound) lifecycle.sessionLost('its disk has to be found again');
    if (this.#paths.isSpread) this.#paths.begin(lun, { isFound });
    else if (this.#isLoggedIn && !isFound) lifecycle.sessionBack();
    const exported = this.#turns.run(() => {
      this.#refuseIfClosing();
      return exporter.add(lifecycle.unit);
    });
    await exported.catch((error: unknown) => {
      this.#paths.remove(lun);
      this.#luns.giveUp(lifecycle, error);
    });
    this.#exported.add(lifecycle);
    const device = exporter.deviceOf(lifecycle.unit);
    if (device !== undefined) this.#emit({ event: 'deviceAttached', lun, device });
    for (const warning of diskWarnings(lun, facts, this.#options)) this.#emit(warning);
  }

  /** A process before this one had the disk and may have left acknowledged writes in its cache. */
  takenOver(unit: LogicalUnit, how: { isClean: boolean; hadCache?: boolean } = { isClean: false }) {
    if (this.#setup.losses?.wasLostBefore(unit.lun)) unit.disk.cache.wasLostBefore();
    const recovered =
      unit.retained === null ? null : (this.#setup.retained?.recover(unit.lun) ?? null);
    if (recovered !== null) this.#luns.recovered(unit, recovered);
    else if (!how.isClean) this.#luns.takenOver(unit, how.hadCache === true);
  }

  warn(message: string): void {
    this.#emit({ event: 'warning', message });
  }

  /** Opens what the disks are served on, after the first of them. Throws as `addDisk`. */
  openExports(): Promise<void> {
    return this.#turns.run(() => {
      this.#refuseIfClosing();
      return this.#openExporter();
    });
  }

  /** Probes every disk again, as after a unit attention; new ones are the caller's to add. */
  probeAgain(): void {
    this.#luns.probeAgain();
  }

  /** True when a disk is away though the session is logged in; probes under way are waited for. */
  isSomeAway(): Promise<boolean> {
    return this.#luns.isSomeAway();
  }

  /** Seconds (or Infinity) an outage may last; a running one counts from its beginning. */
  setRemovalLatency(seconds: number): void {
    for (const { client } of this.#paths.members) client.setRemovalLatency(seconds);
    for (const lun of this.#luns.all) lun.removalLatencyChanged();
  }

  /** Commands in flight at most, while the target takes that many. */
  get queueDepthMax(): number {
    return this.#depth.depthMax;
  }

  setQueueDepthMax(depthMax: number): void {
    this.#depth.limit(depthMax);
  }

  /** The kernel let go of a device without being asked: another process disconnected it. */
  deviceLinkLost(unit: LogicalUnit, reason: string): void {
    if (this.#closing !== null) return;
    this.#luns.of(unit)?.close(reason);
    this.#emit({ event: 'deviceRemoved', ...this.#place(unit), reason });
    const device = this.#exporter?.deviceOf(unit) ?? 'the device';
    this.#whenClosed.reject(
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
        // A forced close meanwhile has had the requests fail: there is no way back.
        if (!force && this.#forcing.signal.aborted) return this.close({ force: true });
        throw error;
      });
    } else if (force) {
      // The close that is under way may be waiting for requests or probes: they end now.
      this.#forcing.abort();
      this.#failRequests();
    }
    return this.#closing;
  }

  async #close(force: boolean): Promise<void> {
    const { isReachable } = this;
    if (!force && isReachable) await this.#luns.probesEnded(this.#forcing.signal);
    // While the session is away nothing can be written: held requests have to fail.
    const isForced = force || this.#forcing.signal.aborted || !isReachable;
    if (isForced) this.#failRequests();
    await this.#turns.run(async () => {
      // One disk that is away is no reason to take the others from their users.
      const away = this.#luns.all.filter(({ state }) => isForced || state !== 'serving');
      await this.#exporter?.close({
        force: isForced,
        isServing: (unit) => !away.some((lun) => lun.unit === unit),
        unused: () => this.#failRequests(away),
      });
      for (const lun of this.#luns.all) lun.close('logged out');
    });
    await this.#paths.close();
    await this.#handle.logout();
    this.#depth.close();
    await this.#setup.claims?.release();
    const isLoggedOut = this.#isLoggedOut && this.#paths.areOthersLoggedOut;
    await this.#setup.onClosed?.({ isLoggedOut });
    this.#emit({ event: 'closed', reason: 'logged out' });
    this.#whenClosed.resolve();
  }

  #failRequests(lifecycles = this.#luns.all): void {
    this.#luns.fail(lifecycles);
    for (const { unit } of lifecycles) this.#paths.unitOf(unit.lun)?.port.giveUp();
  }

  /** The target can be reached, over whichever session. */
  get isReachable(): boolean {
    return this.#paths.isReachable;
  }

  get #isLoggedIn(): boolean {
    return this.#handle.session.state === 'loggedIn';
  }

  #refuseIfClosing(): void {
    if (this.#closing === null) return;
    throw new UsageError(`Session ${this.sessionId} is being logged out.`, {
      exitCode: EXIT_CODES.sessionNotFound.code,
      code: 'ERR_LOGGED_OUT',
    });
  }

  #newLifecycle(lun: number, facts: DiskFacts, exporter: LunExporter): LunLifecycle {
    return newLifecycle(lun, facts, {
      runtime: this.#runtime,
      resources: this.resources,
      setup: this.#setup,
      handle: this.#handle,
      luns: this.#luns,
      paths: this.#paths,
      depth: this.#depth,
      turns: this.#turns,
      exporter,
      openExporter: () => this.#openExporter(),
      emit: (body) => this.#emit(body),
      place: (unit) => this.#place(unit),
    });
  }

  #heard(event: SessionEvent): void {
    switch (event.type) {
      case 'stateChanged':
        this.#stateChanged(event);
        return;
      case 'closeLink':
        this.#isLoggedOut = event.end === 'orderly';
        return;
      case 'attemptFailed':
        this.#attempts.failed(event.error);
        return;
      default: {
        const told = eventOf(event);
        if (told !== null) this.#emit(told);
      }
    }
  }

  /** Comes before the commands that were in flight come back, so that they are held. */
  #stateChanged(change: Extract<SessionEvent, { type: 'stateChanged' }>): void {
    const { from, to, reason } = change;
    const isEnding = to === 'loggingOut' || to === 'closed';
    if (isEnding || (to === 'reconnecting' && !this.#paths.isSpread)) {
      for (const lun of this.#luns.all) lun.sessionLost(reason);
    }
    this.#emit({ event: 'sessionState', from, to, reason });
    switch (to) {
      case 'loggedIn':
        this.#attempts.succeeded();
        // Only now is the address known of disks that were taken over before.
        this.pathSources.claimAt(this.#handle.remote);
        if (!this.#paths.isSpread) for (const lun of this.#luns.all) lun.sessionBack();
        return;
      case 'reconnecting':
        this.#outages += 1;
        this.#handle.whenSettled(() => this.#luns.emitHeld());
        return;
      default:
    }
  }

  #place(unit: LogicalUnit): { lun: number; device?: string } {
    const device = this.#exporter?.deviceOf(unit);
    return device === undefined ? { lun: unit.lun } : { lun: unit.lun, device };
  }

  #emit(body: EventBody): void {
    this.#hooks.onEvent(stampedEvent(body, this.sessionId));
  }
}
