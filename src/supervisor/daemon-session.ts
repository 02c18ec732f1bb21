import { deferred } from '../base/deferred.js';
import { productError } from '../base/errors.js';
import type { LunExport, SessionOptions, SessionState } from '../config/contract.js';
import type { SessionTimers } from '../iscsi/session/session-config.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { newDisks, requireDisks } from '../lun/find-disks.js';
import { everCached, unflushed } from '../lun/hand-over.js';
import { HostClaims } from '../lun/host-claims.js';
import type { LossRecord } from '../lun/loss-record.js';
import type { LunLifecycle } from '../lun/lun-lifecycle.js';
import { threadRuntime } from '../lun/runtime.js';
import type { SessionRetained } from '../lun/session-retained.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { BlockSession } from '../session/block-session.js';
import { diskSearch } from '../session/next-portal.js';
import { stampedEvent } from '../session/stamped-event.js';
import type { DaemonSessionOptions, SessionPlan } from './daemon-session-options.js';
import { completedDisks, strangeDisk, withDisk } from './record-identity.js';
import { otherTargetsOf, portalsOf, recordPaths } from './record-paths.js';
import type { ResolvedLogin } from './resolved-login.js';
import { anotherDisk, bootInUse, loggedOut } from './session-errors.js';
import { exportsOf, type SessionExports } from './session-exports.js';
import {
  hasOpened,
  isGone,
  nextPhase,
  type SessionPhase,
  type SessionPhaseEvent,
} from './session-phase.js';
import type { SessionRecord } from './session-record.js';
import { SessionStatistics } from './session-statistics.js';

export type SessionEnd = 'loggedOut' | 'failed';

/**
 * One session that outlives its process, of a daemon or of `attach`: its identity and record, and
 * the stack that does the work.
 */
export class DaemonSession<Plan extends SessionPlan = ResolvedLogin> {
  readonly plan: Plan;
  readonly options: SessionOptions;
  readonly statistics: SessionStatistics;
  readonly stack: BlockSession;
  record: SessionRecord;
  /** Another disk is in the place of one that was left, so that what was left is of no use. */
  hasMetAnotherDisk = false;
  /** Resolves when all of it is gone: by a logout, or because it could not be or go on. */
  readonly ended: Promise<SessionEnd>;
  readonly #setup: DaemonSessionOptions<Plan>;
  #isLoggedOut = false;
  readonly #end = deferred<SessionEnd>();
  readonly #abort = new AbortController();
  #opening: Promise<void> | null = null;
  #rescanning: Promise<readonly number[]> | null = null;
  #phase: SessionPhase = 'opening';
  #leaveExports: () => Promise<void> = async () => {};

  constructor(setup: DaemonSessionOptions<Plan>) {
    this.#setup = setup;
    this.plan = setup.plan;
    this.options = setup.options;
    this.record = setup.record;
    const { host, port } = setup.plan.request.portal;
    const { targetName, sessionType } = setup.plan.request;
    const { portalGroupTag, paths } = setup.record;
    const isTakenOver = setup.waiting.length > 0;
    const group = isTakenOver && portalGroupTag !== undefined ? { portalGroupTag } : {};
    const identity = { ...setup.identity, ...group };
    const wished = [{ host, port }, ...setup.options.portals];
    const places = portalsOf(wished, paths, { isTakenOver });
    this.stack = new BlockSession(
      threadRuntime(),
      { onEvent: setup.onEvent, signal: this.#abort.signal },
      {
        type: sessionType,
        targetName,
        ...places,
        others: otherTargetsOf(paths),
        onPaths: (places) => this.#save({ paths: recordPaths(places) }),
        identity,
        claims: new HostClaims({ targetName, ...places, identity }, setup.options),
        losses: setup.losses,
        mayHaveGhosts: setup.mayHaveGhosts,
        retained: setup.retained,
        onClosed: ({ isLoggedOut }) => {
          this.#isLoggedOut = isLoggedOut;
        },
        firstLogin: isTakenOver ? 'resume' : setup.firstLogin,
        options: setup.options,
        onLunsChanged: () => this.#lunsChanged(),
      },
    );
    this.statistics = new SessionStatistics(this.stack.handle, threadRuntime().clock.nowMs());
    this.ended = this.#end.promise;
  }

  get losses(): LossRecord {
    return this.#setup.losses;
  }

  get retained(): SessionRetained | undefined {
    return this.#setup.retained;
  }

  /** Without the target having heard of a logout: commands may still be at work there. */
  get hasGhosts(): boolean {
    const { mayHaveGhosts, keepsIdentity = false } = this.#setup;
    const hasBeenThere = mayHaveGhosts || keepsIdentity || this.stack.handle.session.logins > 0;
    return hasBeenThere && !this.#isLoggedOut;
  }

  get sessionId(): string {
    return this.stack.sessionId;
  }

  get state(): SessionState {
    return isGone(this.#phase) ? 'closed' : this.stack.handle.state;
  }

  /** Its target is away, or a disk of it that is not removed; a look under way is waited for. */
  async isAway(): Promise<boolean> {
    return !this.stack.isReachable || (await this.stack.isSomeAway());
  }

  /** It has ended or is about to. */
  get isEnding(): boolean {
    return isGone(this.#phase) || this.#phase === 'abandoned';
  }

  /** Its devices wait for the next process. */
  get isLeft(): boolean {
    return this.#phase === 'left';
  }

  /** Its exports are there or were (an informational session has none). */
  get hasOpened(): boolean {
    return hasOpened(this.#phase);
  }

  get timers(): SessionTimers {
    return this.stack.handle.session.timers;
  }

  /** The system was started from it. */
  get isBoot(): boolean {
    return this.plan.request.sessionType === 'boot';
  }

  /** Throws UsageError 28 for the boot session, which must not end by accident. */
  refuseEndOfBoot(): void {
    if (!this.isBoot) return;
    throw bootInUse(this.sessionId);
  }

  /** What can be used of it now. */
  get exports(): readonly LunExport[] {
    return this.hasOpened ? this.stack.exports : [];
  }

  /** Its LUNs, those that have been removed included. */
  get luns(): readonly LunLifecycle[] {
    return this.hasOpened ? this.stack.luns : [];
  }

  /** Logs in and makes the exports; called again it is the same attempt. */
  open(): Promise<void> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  /**
   * Resolves when the session is open; rejects when it will not be, or, for one that is tried for
   * ever, with the reason of the next attempt that fails.
   */
  async opened(): Promise<void> {
    let unlisten = () => {};
    const refused = new Promise<never>((_resolve, reject) => {
      unlisten = this.stack.handle.listen((effect) => {
        if (effect.type === 'attemptFailed') reject(effect.error);
      });
    });
    refused.catch(() => undefined);
    try {
      const attempts = this.#setup.firstLogin === 'forever' ? [refused] : [];
      await Promise.race([this.open(), ...attempts]);
    } finally {
      unlisten();
    }
  }

  /**
   * Logs out. Without `force` it throws UsageError 28 for a device in use and the session stays,
   * unless its target is away: then the session ends at once.
   */
  async close(options: { readonly force: boolean }): Promise<void> {
    if (this.hasOpened) {
      await this.stack.close({ force: options.force || !this.stack.isReachable });
    } else {
      this.#happened('abandoned');
      this.#abort.abort(loggedOut(this.sessionId));
      // Whatever the opening waits for comes back as lost.
      await this.stack.close({ force: true });
      await this.#opening?.catch(() => undefined);
    }
    this.#happened('closed');
    this.#abort.abort(loggedOut(this.sessionId));
    this.#end.resolve('loggedOut');
  }

  /**
   * Ends this process's part in the session: devices and identity wait for the next process. What
   * was acknowledged is on the disks by then, or the record says of which it may not be.
   */
  async leave(): Promise<void> {
    const { stack } = this;
    this.#happened('left');
    // Nothing is acknowledged any more before the disks are asked to write it down.
    await this.#leaveExports();
    if (this.isEnding) return;
    if (this.state !== 'loggedIn') {
      this.retained?.leave(new Set(stack.units.map(({ lun }) => lun)));
      return;
    }
    // What answers for a unit that does not serve may be another disk.
    const notServing = () => stack.units.filter(({ queue }) => queue.mode !== 'open');
    const unflushed = new Set(notServing().map(({ lun }) => lun));
    for (const lun of await this.flush()) unflushed.add(lun);
    await stack.isSomeAway();
    for (const { lun } of notServing()) unflushed.add(lun);
    if (this.isEnding) return;
    const but = unflushed.size === 0 ? {} : { unflushedLuns: [...unflushed] };
    await this.#save({ handedOver: true, ...but });
    this.retained?.leave(unflushed);
  }

  /**
   * Has the disks write down what they have acknowledged. Resolves to the LUNs that did not in the
   * few seconds there are, to all with a cache while the session is away.
   */
  async flush(): Promise<number[]> {
    const { stack, record } = this;
    return unflushed(stack, everCached(record.disks, stack.units), stack.resources.clock);
  }

  /**
   * Asks the target for its LUNs: new disks are added, known ones looked at again; one that is
   * gone is away as in an outage. Resolves to the LUNs that were added. Rejects with LinkError
   * while the session is away.
   */
  rescan(): Promise<readonly number[]> {
    this.#rescanning ??= this.#rescan().finally(() => {
      this.#rescanning = null;
    });
    return this.#rescanning;
  }

  async #rescan(): Promise<readonly number[]> {
    const { stack } = this;
    if (this.#phase !== 'open' || this.plan.request.sessionType === 'informational') return [];
    const known = () => new Set(stack.units.map((unit) => unit.lun));
    const before = known();
    const how = { known: [...before], onWarning: (message: string) => stack.warn(message) };
    const found = await newDisks(stack, this.options.luns ?? null, how);
    for (const { lun, facts } of await this.#own(found)) {
      if (known().has(lun)) continue;
      await this.#keep(lun, facts);
      await stack.addDisk(lun, facts);
    }
    stack.probeAgain();
    return [...known()].filter((lun) => !before.has(lun));
  }

  /** No caller waits for it. */
  #lunsChanged(): void {
    this.rescan().catch((error: unknown) => {
      const { message } = productError(error);
      this.stack.warn(`new LUNs cannot be used yet: ${message}`);
    });
  }

  async #open(): Promise<void> {
    const { signal: asked = this.#abort.signal } = this.#setup;
    const signal = AbortSignal.any([this.#abort.signal, asked]);
    const { stack } = this;
    try {
      if (this.#setup.waiting.length > 0) {
        await this.#resume(this.#setup.waiting, signal);
      } else {
        await stack.login(signal);
        if (this.plan.request.sessionType !== 'informational') await this.#openExports(signal);
        signal.throwIfAborted();
      }
      this.#happened('opened');
      void stack.pathSources.find(this.#abort.signal);
    } catch (error) {
      if (asked.aborted) stack.handle.hurryLogout();
      await this.breakOff();
      throw signal.aborted ? signal.reason : error;
    }
  }

  /** Work that no caller waits for has failed: the rest of the session is of no use. */
  async breakOff(): Promise<void> {
    // Of an abandoned one it is `close` that does this.
    if (this.isEnding) return;
    this.#happened('brokenOff');
    await this.stack.close({ force: true }).catch(() => undefined);
    this.#end.resolve('failed');
  }

  async #openExports(signal: AbortSignal): Promise<void> {
    const { stack } = this;
    const wanted = this.options.luns ?? null;
    const { targetName } = this.plan.request;
    const search = diskSearch(stack, { targetName, options: this.options, signal });
    const found = await this.#own(await requireDisks(stack, wanted, search));
    this.#requireKnownDisks(found);
    const disks = completedDisks(this.record, found);
    await this.#save({ disks });
    const { exporter, opened } = this.#exports();
    stack.useExporter(exporter, opened);
    const { isLeft, isClean, retained, exportPlan } = this.#setup;
    // A device that is made now is of use at once, and none was taken back.
    if (exportPlan.kind === 'devices') retained?.settle();
    for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
    // Clients of a daemon before this one come back to their socket.
    for (const unit of isLeft ? stack.units : []) {
      stack.takenOver(unit, { isClean: isClean(unit.lun) });
    }
    retained?.settle();
    await stack.openExports();
  }

  /** Takes devices back, which hold their requests until the session is logged in again. */
  async #resume(waiting: readonly FoundDisk[], signal: AbortSignal): Promise<void> {
    const { stack } = this;
    const { exporter, opened, leave } = this.#exports();
    stack.useExporter(exporter, opened);
    try {
      for (const { lun, facts, field } of waiting) await stack.addDisk(lun, facts, field);
      signal.throwIfAborted();
    } catch (error) {
      // This process must not remove them: data of their users wait in them.
      await leave();
      throw error;
    }
    const { isClean, retained } = this.#setup;
    for (const unit of stack.units) stack.takenOver(unit, { isClean: isClean(unit.lun) });
    retained?.settle();
    const unlisten = stack.handle.listen((effect) => {
      if (effect.type !== 'stateChanged' || effect.to !== 'loggedIn') return;
      unlisten();
      // Disks that had no device yet, or are new at the target.
      stack.handle.whenSettled(() => this.#lunsChanged());
    });
    stack.resume();
  }

  /** A device that waits since a crash takes no other disk than the one that it had. */
  #requireKnownDisks(disks: readonly FoundDisk[]): void {
    const other = strangeDisk(this.record, disks, this.options);
    if (other === null) return;
    this.hasMetAnotherDisk = other.isOther;
    throw anotherDisk(other, this.plan.request.targetName);
  }

  #own(found: FoundDisk[]): Promise<FoundDisk[]> {
    return this.#setup.ownDisks?.(found) ?? Promise.resolve(found);
  }

  #exports(): SessionExports {
    const { exportPlan, onEvent } = this.#setup;
    const { request } = this.plan;
    const exports = exportsOf(exportPlan, this.stack, {
      targetName: request.targetName,
      portal: request.portal,
      onInUse: (place, holders) => {
        onEvent(stampedEvent({ event: 'deviceInUse', ...place, holders }, this.sessionId));
      },
      keep: (lun, facts) => this.#keep(lun, facts),
    });
    this.#leaveExports = exports.leave;
    return exports;
  }

  #happened(event: SessionPhaseEvent): void {
    this.#phase = nextPhase(this.#phase, event);
  }

  #save(change: Partial<SessionRecord>): Promise<void> {
    this.record = { ...this.record, ...change };
    return this.#setup.saveRecord(this.record);
  }

  /** Writes down what the disk of a LUN is. */
  async #keep(lun: number, facts: DiskFacts): Promise<void> {
    const disk = { lun, facts, field: this.stack.lunFields.hexOf(lun) };
    await this.#save(withDisk(this.record, disk, this.stack.portalGroupTag));
  }
}
