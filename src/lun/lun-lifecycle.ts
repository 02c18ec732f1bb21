import { isDeepStrictEqual } from 'node:util';
import { NEVER_MS } from '../base/clock.js';
import { productError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention, VerdictAction } from '../scsi/sense-table.js';
import type { LunLifecycleOptions, LunNews } from './lun-lifecycle-options.js';
import { type Finding, LunProbe } from './lun-probe.js';
import { LunReplay } from './lun-replay.js';
import { isHeld, type LunEvent, type LunState, lunMove } from './lun-state.js';
import { ProbePace, ProbeRun } from './probe-run.js';
import { RemovalTimer } from './removal-timer.js';
import { SizePoll } from './size-poll.js';
import { removeExport, updateExport } from './update-export.js';

/**
 * What moves one LUN through the states of `lun-state`, and what each move does: its requests are
 * held while the session is away, let go only after a probe has found the same disk (bridge's
 * identity gate), and failed if that takes longer than the removal latency or another disk is
 * found. Then its export is removed, and made again under the same name when the disk is back. A
 * LUN at which the target has no disk yet (it is still starting) is away too, and probed again.
 */
export class LunLifecycle {
  readonly unit: LogicalUnit;
  #state: LunState = 'serving';
  /** Why it does not serve; null while it does. */
  lastError: string | null = null;
  /** Longest time a request may have been held so far. */
  longestHoldMs = 0;
  readonly #options: LunLifecycleOptions;
  /** Instant since which requests are held, or wait because the disk could not serve. */
  #heldSinceMs = 0;
  /** Instant at which it last began to serve. */
  #servingSinceMs = 0;
  readonly #probe: LunProbe;
  readonly #run: ProbeRun;
  readonly #pace: ProbePace;
  readonly #replay: LunReplay;
  readonly #removal: RemovalTimer;
  readonly #poll: SizePoll;
  /** `deviceHeld` has been emitted, and `deviceReleased` has to follow. */
  #hasEmittedHeld = false;
  /** What the exporter, and those who use it, know of the disk. */
  #exported: DiskFacts;
  /** Number of the newest export: one before it that still waits for its turn makes nothing. */
  #exports = 0;
  /** Resolves when the export that is being made exists, or has failed. */
  #exporting: Promise<void> = Promise.resolve();

  constructor(options: LunLifecycleOptions) {
    const { unit, clock, timers } = options;
    this.unit = unit;
    this.#options = options;
    this.#exported = unit.facts;
    const answered = () => this.#state === 'checking' && this.#removal.answered();
    this.#probe = new LunProbe(options, () => this.#probeSent(), answered);
    this.#run = new ProbeRun(clock);
    this.#pace = new ProbePace(options.probeIntervalMs);
    this.#replay = new LunReplay({ unit, clock, emit: options.emit });
    const due = (reason: string) => this.#removed('removalLatencyPassed', reason);
    this.#removal = new RemovalTimer({ clock, timers, due });
    this.#poll = new SizePoll({
      clock,
      ask: () => (this.state === 'serving' ? this.#probe.blockCount() : null),
      changed: () => this.unitAttention('capacityChanged'),
      blockCount: () => unit.facts.blockCount,
    });
  }

  get state(): LunState {
    return this.#state;
  }

  /** Its export or device exists. */
  get isExported(): boolean {
    return this.state === 'serving' || this.state === 'checking' || this.state === 'away';
  }

  /** Its requests wait. */
  get isHeld(): boolean {
    return isHeld(this.state);
  }

  /** Instant at which waiting requests fail; Infinity while that is not due. */
  get removalAtMs(): number {
    return this.isHeld ? this.#removal.dueAtMs : NEVER_MS;
  }

  get isProbing(): boolean {
    return this.#run.isRunning;
  }

  /** Resolves when the probe under way ends, at `untilMs` at the latest. */
  probed(untilMs: number, signal?: AbortSignal): Promise<void> {
    return this.#run.ended(untilMs, signal);
  }

  /**
   * Nothing is sent from now on. An outage begins with the first loss of the session; one more
   * before the LUN has served again does not put the removal off.
   */
  sessionLost(reason: string): void {
    if (this.state === 'closed') return;
    this.#stopProbing();
    const isFirstLoss = !this.#probe.isAfterLoss;
    this.#probe.sessionLost();
    this.#replay.sessionLost();
    const from = this.#move('sessionLost');
    if (from === 'removed') return;
    this.lastError = reason;
    if (from === 'serving') this.#hold();
    else if (isFirstLoss || from === 'returning') this.#countFromNow();
  }

  sessionBack(): void {
    if (this.state === 'closed') return;
    this.#move('sessionBack');
    this.#beginProbing();
  }

  /**
   * The disk reports a unit attention, in words of the sense table, or that it cannot serve; a
   * request waits for that since `sinceMs`. What a probe under way has found so far may be about
   * the disk before.
   */
  unitAttention(attention: Attention, sinceMs = this.#options.clock.nowMs()): void {
    if (!this.#probe.unitAttention(attention) && !this.#replay.isDue) return;
    this.#replay.interrupt();
    this.probeAgain(sinceMs);
  }

  /**
   * A command of any owner met a unit attention of this LUN. A LUN that is away reports so to every
   * probe, which is no news.
   */
  attentionMet(attention: Attention, action: VerdictAction): void {
    if ((action === 'fail' || action === 'away') && this.state !== 'serving') return;
    this.unit.disk.unitAttention(attention, 'reported to a command of ours');
  }

  /** Probes the disk if it serves; else it is being probed, or will be. */
  probeAgain(sinceMs = this.#options.clock.nowMs()): void {
    if (this.state !== 'serving') return;
    this.#move('probeRequested');
    this.unit.hold();
    this.#countFrom(sinceMs);
    // If not, it is ready for probes and not for the request: the absence is still the same.
    if (sinceMs >= this.#servingSinceMs) this.#beginProbing();
    else this.#probeLater(this.#pace.nextMs());
  }

  /** Emits once an outage how much is held. */
  emitHeld(): void {
    if (this.state !== 'away' || this.#hasEmittedHeld) return;
    this.#hasEmittedHeld = true;
    const { heldRequests, heldBytes } = this.unit.queue;
    this.#emit({ event: 'deviceHeld', requests: heldRequests, bytes: heldBytes });
  }

  /** The removal latency is another one; it counts from when the LUN stopped serving. */
  removalLatencyChanged(): void {
    this.#removal.latencyChanged();
  }

  /** Nothing happens to the LUN any more; its requests fail. */
  close(reason: string): void {
    this.#noteHold();
    this.#move('closeRequested');
    this.#poll.stop();
    this.#stopProbing();
    this.#removal.stop();
    this.unit.queue.fail(reason);
    this.unit.close();
    this.#options.onRemoved();
  }

  /** Returns the state before. */
  #move(event: LunEvent): LunState {
    const from = this.#state;
    this.#state = lunMove(from, event);
    return from;
  }

  #hold(): void {
    this.unit.hold();
    this.#countFromNow();
  }

  #countFromNow(): void {
    this.#countFrom(this.#options.clock.nowMs());
  }

  /** While the export is being made nothing is removed; the time counts all the same. */
  #countFrom(sinceMs: number): void {
    this.#heldSinceMs = sinceMs;
    if (this.state !== 'returning') this.#startRemoval();
  }

  #startRemoval(): void {
    this.#removal.start(this.#heldSinceMs, () => this.#probe.isKeptFromAsking);
  }

  #probeSent(): void {
    // Until now it was not the disk that kept us waiting.
    if (this.isHeld && this.#removal.isOverdue) this.#countFromNow();
  }

  #beginProbing(): void {
    this.#pace.beginsAnew();
    this.#probeNow();
  }

  #probeNow(): void {
    this.#stopProbing();
    this.#run.start(
      (isCurrent) => this.#probeOnce(isCurrent),
      // The next login probes again; without one (a command was aborted) we do.
      () => {
        if (this.state !== 'serving') this.#probeLater();
      },
    );
  }

  #probeLater(pauseMs = this.#options.probeIntervalMs()): void {
    this.#run.later(pauseMs, () => this.#probeNow());
  }

  #stopProbing(): void {
    this.#run.stop();
    this.#probe.abandoned();
  }

  async #probeOnce(isCurrent: () => boolean): Promise<void> {
    const finding = await this.#probe.find({ isRemoved: this.state === 'removed' });
    if (!isCurrent()) return;
    switch (finding.is) {
      case 'same':
        await this.#sameDiskFound(finding, isCurrent);
        return;
      case 'other':
        this.#removed('otherDiskFound', finding.why);
        break;
      case 'none':
        this.#cannotServe(finding.why, isCurrent);
        return;
      case 'changing':
    }
    if (isCurrent()) this.#probeLater();
  }

  #cannotServe(why: string, isCurrent: () => boolean): void {
    if (this.#move('noDiskFound') !== 'removed') this.lastError = why;
    this.emitHeld();
    if (isCurrent()) this.#probeLater(this.#pace.nextMs());
  }

  async #sameDiskFound(
    finding: Extract<Finding, { is: 'same' }>,
    isCurrent: () => boolean,
  ): Promise<void> {
    const { facts } = finding;
    const { unit, state } = this;
    if (state === 'returning') {
      // A probe before this one has begun to export it, and waits for its turn: that comes first.
      await this.#exporting;
      if (isCurrent()) this.#probeNow();
      return;
    }
    unit.disk.facts = facts;
    this.#options.factsRead(unit);
    const wasRemoved = state === 'removed';
    if (wasRemoved && !(await this.#export(isCurrent))) return;
    // A process that takes over relies on what is written down: before the next acknowledgement.
    if (!isDeepStrictEqual(this.#exported, facts)) {
      await this.#options.exporter().keepFacts?.(unit);
    }
    const isAway =
      !wasRemoved && isCurrent() && (await this.#replay.run(() => this.#replayGoesOn()));
    // Meanwhile the disk may have changed, or have been removed, or have lost its cache again.
    const isStale = finding.attentions !== this.#probe.attentions || this.#replay.isDue;
    const isMoved = this.#state !== (wasRemoved ? 'returning' : state);
    if (isAway && !isMoved && isCurrent()) {
      this.#cannotServe('it is ready for probes, and takes no writes', isCurrent);
      return;
    }
    if (!isCurrent() || isStale || isMoved) {
      if (wasRemoved && !isMoved) this.#exportedTooLate();
      if (isCurrent()) this.#probeNow();
      return;
    }
    await this.#serve(wasRemoved, facts);
  }

  /** The disk answers and takes writes: what keeps its users waiting is not its absence. */
  #replayGoesOn(): void {
    if (this.isHeld) this.#removal.start(this.#options.clock.nowMs(), () => false);
  }

  /** Held requests go out, and the exporter's users see what has changed. */
  async #serve(wasRemoved: boolean, facts: DiskFacts): Promise<void> {
    this.#noteHold();
    this.#removal.stop();
    this.#move(wasRemoved ? 'exported' : 'sameDiskFound');
    this.lastError = null;
    this.#servingSinceMs = this.#options.clock.nowMs();
    this.#probe.admitted();
    this.#replay.serves();
    this.unit.queue.release();
    if (wasRemoved) this.#emit({ event: 'deviceAttached' });
    else if (this.#hasEmittedHeld) this.#emit({ event: 'deviceReleased' });
    this.#hasEmittedHeld = false;
    const before = this.#exported;
    const isResized = facts.blockCount !== before.blockCount;
    const isOther = isResized || facts.readOnly !== before.readOnly;
    this.#exported = facts;
    if (
      isOther &&
      !wasRemoved &&
      !(await updateExport(this.unit, this.#options, () => this.state !== 'closed'))
    ) {
      // The next probe finds the difference again.
      this.#exported = before;
      return;
    }
    if (isResized) this.#emit({ event: 'deviceResized', sizeBytes: this.unit.queue.sizeBytes });
  }

  /** Exports the disk again; requests that come early are held. False if it has to wait. */
  async #export(isCurrent: () => boolean): Promise<boolean> {
    const { unit } = this;
    const { turns, exporter, openExporter } = this.#options;
    this.#move('sameDiskFound');
    this.#probe.outageOver();
    this.#hold();
    this.#exports += 1;
    const number = this.#exports;
    const isMine = () => this.#state === 'returning' && number === this.#exports;
    const exported = turns.run(async () => {
      if (!isMine()) return;
      await exporter().add(unit);
      await openExporter();
    });
    this.#exporting = exported.catch(() => undefined);
    try {
      await exported;
    } catch (error) {
      const { message } = productError(error);
      if (isMine()) this.#exportFailed(message, isCurrent);
      return false;
    }
    if (!isMine()) return false;
    if (isCurrent()) return true;
    this.#exportedTooLate();
    return false;
  }

  #exportFailed(why: string, isCurrent: () => boolean): void {
    this.#move('exportFailed');
    const reason = `it is back but cannot be exported yet: ${why}`;
    this.unit.queue.fail(reason);
    // Each probe tries again, and one event is enough.
    if (reason !== this.lastError) this.#emit({ event: 'deviceRemoved', reason });
    this.lastError = reason;
    if (isCurrent()) this.#probeLater();
    this.#options.onRemoved();
  }

  /** The session went meanwhile, or the disk has to be probed again: the export exists. */
  #exportedTooLate(): void {
    this.#move('exportedTooLate');
    this.#emit({ event: 'deviceAttached' });
    this.#startRemoval();
  }

  /** Held requests fail now, and the export or device is removed. */
  #removed(event: 'removalLatencyPassed' | 'otherDiskFound', reason: string): void {
    this.#noteHold();
    const from = this.#move(event);
    const isLate = event === 'removalLatencyPassed' && this.lastError !== null;
    this.lastError = isLate ? `${reason}: ${this.lastError}` : reason;
    if (from === 'removed') return;
    this.#hasEmittedHeld = false;
    this.#removal.stop();
    this.#replay.drop();
    this.unit.queue.fail(reason);
    removeExport(this.unit, this.#options, { reason, isWanted: () => this.state !== 'closed' });
    this.#options.onRemoved();
  }

  #noteHold(): void {
    if (this.unit.queue.heldRequests === 0) return;
    const heldMs = this.#options.clock.nowMs() - this.#heldSinceMs;
    this.longestHoldMs = Math.max(this.longestHoldMs, heldMs);
  }

  #emit(news: LunNews): void {
    this.#options.emit(news);
  }
}
