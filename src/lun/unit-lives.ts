import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import type { Attention, VerdictAction } from '../scsi/sense-table.js';
import type { UnitLife } from './unit-life.js';

/** How long looks that are under way are waited for. */
const LOOKS_MS_MAX = 10_000;
/** Attentions that say what has become of acknowledged writes. */
const CACHE_EVENTS: ReadonlySet<Attention> = new Set(['powerOn', 'reset', 'cachedWriteLost']);

/** The units of one session: what is told to all of them, or to whom it concerns. */
export class UnitLives {
  readonly #clock: Clock;
  readonly #lives: UnitLife[] = [];
  /** What LUNs without a unit said of their caches, to questions of ours. */
  readonly #cacheEvents = new Map<number, Set<Attention>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get all(): readonly UnitLife[] {
    return this.#lives;
  }

  add(life: UnitLife): void {
    this.#lives.push(life);
  }

  /** The unit could not be exported: nothing of it stays, and it may be added again. */
  giveUp(life: UnitLife, error: unknown): never {
    life.end('it could not be exported');
    const at = this.#lives.indexOf(life);
    if (at >= 0) this.#lives.splice(at, 1);
    throw error;
  }

  of(unit: LunUnit): UnitLife | undefined {
    return this.#lives.find((life) => life.unit === unit);
  }

  /** A question of ours met an attention; the unit may not be there yet. */
  questionMet(lun: number, attention: Attention, action: VerdictAction): void {
    const life = this.#lives.find(({ unit }) => unit.lun === lun);
    if (life !== undefined) {
      life.questionMet(attention, action);
    } else if (CACHE_EVENTS.has(attention)) {
      const events = this.#cacheEvents.get(lun) ?? new Set();
      this.#cacheEvents.set(lun, events.add(attention));
    }
  }

  /**
   * A process before this one had the disk: its writes may be in the cache, acknowledged. What the
   * disk said of its cache before the unit was there counts.
   */
  takenOver(unit: LunUnit, hadCache: boolean): void {
    unit.disk.takenOver(hadCache);
    for (const attention of this.#cacheEvents.get(unit.lun) ?? []) {
      if (attention === 'cachedWriteLost') unit.disk.attended(attention, 'told before');
      else unit.disk.cacheMayBeLost();
    }
    this.#cacheEvents.delete(unit.lun);
  }

  /**
   * The unit has met an attention. LUNs that have changed may all be other disks, and a target may
   * tell only one of them so.
   */
  attended(life: UnitLife, attention: Attention): void {
    life.attended(attention);
    if (attention === 'lunGone') this.lookAgain();
    if (attention !== 'lunsChanged') return;
    for (const other of this.#lives) if (other !== life) other.attended(attention);
  }

  /** Looks at every disk again that is not being looked at. */
  lookAgain(): void {
    for (const life of this.#lives) life.lookAgain();
  }

  /**
   * REPORT LUNS takes the attention about changed LUNs from all of them (SPC-4 §6.33). So each that
   * serves is asked something before it, to hear of that itself, and looked at after it.
   */
  lunsReported(is: 'sent' | 'answered', ask: (lun: number) => Promise<unknown>): void {
    for (const life of this.#lives) {
      if (is === 'answered') life.attended('factsStale');
      // A question that was lost is asked again by the look that follows.
      else if (life.state === 'serving') ask(life.unit.lun).catch(productError);
    }
  }

  /** Waits for the looks that are under way, which take some round trips, or as long as allowed. */
  async looksEnded(signal?: AbortSignal): Promise<void> {
    const untilMs = this.#clock.nowMs() + LOOKS_MS_MAX;
    for (const life of this.#lives) {
      while (
        life.isHeld &&
        life.isLooking &&
        this.#clock.nowMs() < untilMs &&
        signal?.aborted !== true
      ) {
        await life.looked(untilMs, signal);
      }
    }
  }

  /** True when a disk is away though the session is there; looks under way are waited for. */
  async isSomeAway(): Promise<boolean> {
    await this.looksEnded();
    return this.#lives.some(({ isHeld }) => isHeld);
  }

  /** Requests of these fail from now on: they are being logged out. */
  fail(lives: readonly UnitLife[] = this.#lives): void {
    for (const { unit } of lives) unit.queue.fail('logout');
  }

  get heldRequestsTotal(): number {
    return this.#lives.reduce((sum, { unit }) => sum + unit.queue.heldTotal, 0);
  }

  get longestHoldMs(): number {
    return this.#lives.reduce((most, life) => Math.max(most, life.longestHoldMs), 0);
  }
}
