import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { RecoveredWrites } from '../bridge/retained/retained-memory.js';
import type { Attention, VerdictAction } from '../scsi/sense-table.js';
import type { LunLifecycle } from './lun-lifecycle.js';

/** How long probes that are under way are waited for. */
const PROBES_MS_MAX = 10_000;
/** Unit attentions that say what has become of acknowledged writes. */
const CACHE_EVENTS: ReadonlySet<Attention> = new Set(['powerOn', 'reset', 'cachedWriteLost']);

/** The LUNs of one session: what concerns all of them, or one of them. */
export class LunLifecycles {
  readonly #clock: Clock;
  readonly #all: LunLifecycle[] = [];
  /** What LUNs that are not served yet reported of their caches, to commands of ours. */
  readonly #cacheEvents = new Map<number, Set<Attention>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get all(): readonly LunLifecycle[] {
    return this.#all;
  }

  get luns(): readonly number[] {
    return this.#all.map(({ unit }) => unit.lun);
  }

  add(lifecycle: LunLifecycle): void {
    this.#all.push(lifecycle);
  }

  /** The unit could not be exported: nothing of it stays, and it may be added again. */
  giveUp(lifecycle: LunLifecycle, error: unknown): never {
    lifecycle.close('it could not be exported');
    const at = this.#all.indexOf(lifecycle);
    if (at >= 0) this.#all.splice(at, 1);
    throw error;
  }

  of(unit: LogicalUnit): LunLifecycle | undefined {
    return this.#all.find((one) => one.unit === unit);
  }

  /** A command of ours met a unit attention; the LUN may not be served yet. */
  attentionMet(lun: number, attention: Attention, action: VerdictAction): void {
    const lifecycle = this.#all.find(({ unit }) => unit.lun === lun);
    if (lifecycle !== undefined) {
      lifecycle.attentionMet(attention, action);
    } else if (CACHE_EVENTS.has(attention)) {
      const events = this.#cacheEvents.get(lun) ?? new Set();
      this.#cacheEvents.set(lun, events.add(attention));
    }
  }

  /**
   * A process before this one had the disk: its writes may be in the cache, acknowledged. What the
   * disk said of its cache before the unit was there counts.
   */
  takenOver(unit: LogicalUnit, hadCache: boolean): void {
    unit.takenOver(hadCache);
    this.#tellCacheEvents(unit);
  }

  /** The same, and that process has left what it retained. */
  recovered(unit: LogicalUnit, recovered: readonly RecoveredWrites[]): void {
    unit.disk.cache.adopt(recovered);
    this.#tellCacheEvents(unit);
    // One that serves already does not any more.
    if (unit.retained?.replayReason != null) this.of(unit)?.probeAgain();
  }

  #tellCacheEvents(unit: LogicalUnit): void {
    for (const attention of this.#cacheEvents.get(unit.lun) ?? []) {
      if (attention === 'cachedWriteLost') unit.disk.unitAttention(attention, 'told before');
      else unit.disk.cache.mayBeLost();
    }
    this.#cacheEvents.delete(unit.lun);
  }

  /**
   * A LUN has reported a unit attention. LUNs that have changed may all be other disks, and a
   * target may report that to one of them only.
   */
  unitAttention(lifecycle: LunLifecycle, attention: Attention, sinceMs: number): void {
    lifecycle.unitAttention(attention, sinceMs);
    if (attention === 'lunGone') this.probeAgain();
    if (attention !== 'lunsChanged') return;
    for (const other of this.#all) if (other !== lifecycle) other.unitAttention(attention);
  }

  /** Probes every disk again that is not being probed. */
  probeAgain(): void {
    for (const lifecycle of this.#all) lifecycle.probeAgain();
  }

  /**
   * REPORT LUNS clears the unit attention about changed LUNs for all of them (SPC-4 §6.33). So
   * each that serves gets a command before it, to report that itself, and is probed after it.
   */
  lunsReported(is: 'sent' | 'answered', ask: (lun: number) => Promise<unknown>): void {
    for (const lifecycle of this.#all) {
      if (is === 'answered') lifecycle.unitAttention('factsStale');
      // A command that was lost is repeated by the probe that follows.
      else if (lifecycle.state === 'serving') ask(lifecycle.unit.lun).catch(productError);
    }
  }

  /**
   * Waits for the probes that are under way: for some round trips, ten seconds at most. One that
   * ends may have others begin, of LUNs that served until then.
   */
  async probesEnded(signal?: AbortSignal): Promise<void> {
    const untilMs = this.#clock.nowMs() + PROBES_MS_MAX;
    while (this.#clock.nowMs() < untilMs && signal?.aborted !== true) {
      const probed = this.#all.find(({ isHeld, isProbing }) => isHeld && isProbing);
      if (probed === undefined) return;
      await probed.probed(untilMs, signal);
    }
  }

  /** True if requests of a LUN wait. */
  get isSomeHeld(): boolean {
    return this.#all.some(({ isHeld }) => isHeld);
  }

  /** True if a disk is away though the session is logged in; probes under way are waited for. */
  async isSomeAway(): Promise<boolean> {
    await this.probesEnded();
    return this.isSomeHeld;
  }

  /** Each that is away emits how much is held. */
  emitHeld(): void {
    for (const lifecycle of this.#all) lifecycle.emitHeld();
  }

  /** Requests of these fail from now on: they are being logged out. */
  fail(lifecycles: readonly LunLifecycle[] = this.#all): void {
    for (const { unit } of lifecycles) unit.queue.fail('logout');
  }

  get heldRequestsTotal(): number {
    return this.#all.reduce((sum, { unit }) => sum + unit.queue.heldTotal, 0);
  }

  get longestHoldMs(): number {
    return this.#all.reduce((most, one) => Math.max(most, one.longestHoldMs), 0);
  }
}
