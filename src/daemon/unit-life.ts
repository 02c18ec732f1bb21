import type { Clock } from '../base/clock.js';
import { LinkError, ProductError } from '../base/errors.js';
import { whyAnotherDisk } from '../bridge/identity-gate.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import {
  type Asker,
  type AttentionHandler,
  clearAttentions,
  readBlockCount,
  readFacts,
} from './disk-probe.js';
import type { LunExporter } from './lun-exporter.js';
import type { Turns } from './turns.js';

/**
 * - `serving`: requests go to the target;
 * - `held`: they wait, because the link is down or the disk has not been looked at again;
 * - `returning`: the same disk is back, its export is on the way;
 * - `removed`: they fail, and the export or device is away.
 */
export type UnitState = 'serving' | 'held' | 'returning' | 'removed';

/** What a unit has to tell; the stack adds which one it is. */
export type UnitNews =
  | { readonly event: 'deviceHeld'; readonly requests: number; readonly bytes: number }
  | { readonly event: 'deviceReleased' | 'deviceAttached' }
  | { readonly event: 'deviceRemoved'; readonly reason: string }
  | { readonly event: 'deviceResized'; readonly sizeBytes: number };

export type UnitLifeOptions = {
  readonly unit: LunUnit;
  readonly asker: Asker;
  readonly clock: Clock;
  /** The exporter's work, in order over all units of a session. */
  readonly turns: Turns;
  readonly timers: { readonly removalLatencyMs: number; readonly reconnectIntervalMs: number };
  readonly exporter: () => LunExporter;
  /** Opens what the exporter serves on, where that went with the last unit. */
  readonly openExporter: () => Promise<void>;
  readonly tell: (life: UnitLife, news: UnitNews) => void;
};

/**
 * Attentions after which the LUN may be another disk, or one with other facts. A reset brings mode
 * pages back to what was saved: the write cache and write protection may be others.
 */
const LOOK_AGAIN: ReadonlySet<Attention> = new Set<Attention>([
  'powerOn',
  'reset',
  'mediumChanged',
  'inquiryChanged',
  'lunsChanged',
  'capacityChanged',
  'modeChanged',
]);
/** A disk that changes under every look is looked at again later. */
const LOOKS_MAX = 4;
/**
 * Pause between questions for the size: LIO and others say nothing when a disk grows. One small
 * command for each disk; those who cannot wait that long have a target that says so.
 */
export const SIZE_POLL_MS = 30_000;
/** A disk that does not answer is asked less and less: what ends the wait harms its session. */
const SIZE_POLL_MS_MAX = 32 * SIZE_POLL_MS;

type Finding =
  | { readonly is: 'same'; readonly facts: DiskFacts }
  | { readonly is: 'other' | 'absent'; readonly why: string }
  | { readonly is: 'untold' };

/**
 * The life of one unit over outages: held while the session is away, let go only after the
 * identity gate has found the same disk, taken away when that takes longer than the removal
 * latency or another disk is found, and brought back under the same name. A LUN that does not
 * answer as a disk yet (a target that is still starting) is away too, and asked again.
 */
export class UnitLife {
  readonly unit: LunUnit;
  state: UnitState = 'serving';
  /** Longest time a request may have been held so far. */
  longestHoldMs = 0;
  readonly #options: UnitLifeOptions;
  /** Number of the newest look at the disk; what an older one finds counts no more. */
  #look = 0;
  #awaySinceMs = 0;
  #cancelRemoval: () => void = () => undefined;
  #cancelNextLook: () => void = () => undefined;
  #cancelPoll: () => void = () => undefined;
  #pollPauseMs = SIZE_POLL_MS;
  #hasToldHeld = false;
  /** Why it could not be exported again, as last told. */
  #whyNotBack = '';
  /** The session was lost since the unit last served; else it is held for a look only. */
  #isOutage = false;
  #mayHaveMissedPowerOn = false;
  #isOver = false;
  /**
   * A unit attention is told once: one that a question of ours meets is the disk's as well. A LUN
   * that is gone says so at every look, which is no news to the others.
   */
  readonly #met: AttentionHandler = (attention, action) => {
    if (action === 'fail' && this.state !== 'serving') return;
    this.unit.disk.attended(attention, 'told to a question of ours');
  };

  constructor(options: UnitLifeOptions) {
    this.unit = options.unit;
    this.#options = options;
    this.#pollLater();
  }

  /** Its export or device is there, if it ever was. */
  get isExported(): boolean {
    return this.state === 'serving' || this.state === 'held';
  }

  /**
   * The session is away: nothing goes out from now on. Being away begins with the first loss of
   * the session; one more before the unit has served again does not put the removal off.
   */
  hold(): void {
    this.#stopLooking();
    const isKnown = this.state === 'removed' || (this.state === 'held' && this.#isOutage);
    this.#isOutage = true;
    if (!isKnown) this.#beginHold();
  }

  /** Tells how much is held, once an outage. */
  tellHeld(): void {
    if (this.state !== 'held' || this.#hasToldHeld) return;
    this.#hasToldHeld = true;
    const { heldRequests, heldBytes } = this.unit.queue;
    this.#tell({ event: 'deviceHeld', requests: heldRequests, bytes: heldBytes });
  }

  /** The session is there: is it the same disk? */
  look(): void {
    if (this.#isOver) return;
    this.#stopLooking();
    const look = this.#look;
    this.#lookAt(look).catch((error: unknown) => this.#lookFailed(look, error));
  }

  /** The disk asks for attention, in words of the sense table. */
  attended(attention: Attention): void {
    if (!LOOK_AGAIN.has(attention) || this.state !== 'serving') return;
    this.#beginHold();
    this.look();
  }

  /** The removal latency has been changed; it counts from when the unit went away. */
  removalLatencyChanged(): void {
    if (this.state === 'held') this.#setRemoval();
  }

  /** What is held fails now, and the export or device is taken away. */
  remove(reason: string): void {
    if (this.state === 'removed' || this.#isOver) return;
    this.#noteHold();
    this.#cancelRemoval();
    this.state = 'removed';
    this.unit.queue.fail(reason);
    const { turns, exporter } = this.#options;
    turns
      .run(async () => {
        if (!this.#isOver) await exporter().remove(this.unit, reason);
      })
      .then(
        () => this.#tell({ event: 'deviceRemoved', reason }),
        (error: unknown) => {
          if (!isOfTarget(error)) throw error;
          const why = `${reason}; it could not be taken away: ${error.message}`;
          this.#tell({ event: 'deviceRemoved', reason: why });
        },
      );
  }

  /** Nothing happens to the unit any more; its requests fail. */
  end(reason: string): void {
    this.#noteHold();
    this.#isOver = true;
    this.#cancelPoll();
    this.#stopLooking();
    this.#cancelRemoval();
    this.state = 'removed';
    this.unit.queue.fail(reason);
    this.unit.close();
  }

  #beginHold(): void {
    this.#awaySinceMs = this.#options.clock.nowMs();
    if (this.state === 'returning') return;
    this.state = 'held';
    this.unit.queue.hold();
    this.#setRemoval();
  }

  async #lookAt(look: number): Promise<void> {
    const finding = await this.#find();
    if (look !== this.#look) return;
    switch (finding.is) {
      case 'same':
        await this.#admit(finding.facts, look);
        return;
      case 'other':
        this.remove(`another disk has this LUN now: ${finding.why}`);
        break;
      case 'absent':
      case 'untold':
    }
    if (look === this.#look) this.#lookLater();
  }

  /** What is at the LUN now; rejects with LinkError when the session goes meanwhile. */
  async #find(): Promise<Finding> {
    const { unit } = this;
    for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
      let isStale = false;
      try {
        const { asker } = this.#options;
        this.#askForAttentions();
        // What is told before the facts are read does not make them stale.
        await clearAttentions(asker, unit.lun, this.#met);
        this.#mayHaveMissedPowerOn = false;
        const facts = await readFacts(asker, unit.lun, (attention, action) => {
          this.#met(attention, action);
          if (LOOK_AGAIN.has(attention)) isStale = true;
        });
        if (isStale) continue;
        const why = whyAnotherDisk(unit.facts, facts);
        return why === null ? { is: 'same', facts } : { is: 'other', why };
      } catch (error) {
        if (error instanceof LinkError || !isOfTarget(error)) throw error;
        return { is: 'absent', why: error.message };
      }
    }
    return { is: 'untold' };
  }

  /**
   * A unit attention is told once. When the link went before the answer to the first look after a
   * login, that may have been the one about the power: loss has to be assumed, so that none is
   * silent. A look in a session that goes on is one command among many and tells no more.
   */
  #askForAttentions(): void {
    if (this.#mayHaveMissedPowerOn) this.unit.disk.cacheMayBeLost();
    this.#mayHaveMissedPowerOn = this.#isOutage;
  }

  async #admit(facts: DiskFacts, look: number): Promise<void> {
    const { unit } = this;
    const grew = facts.blockCount !== unit.facts.blockCount;
    const wasReadOnly = unit.queue.readOnly;
    unit.disk.facts = facts;
    const wasRemoved = this.state === 'removed';
    if (wasRemoved && !(await this.#bringBack(look))) return;
    this.#noteHold();
    this.#cancelRemoval();
    this.state = 'serving';
    this.#isOutage = false;
    unit.queue.release();
    if (wasRemoved) this.#tell({ event: 'deviceAttached' });
    else if (this.#hasToldHeld) this.#tell({ event: 'deviceReleased' });
    this.#hasToldHeld = false;
    if (grew) await this.#resized(!wasRemoved);
    else if (unit.queue.readOnly !== wasReadOnly && !wasRemoved) await this.#tellExporter();
  }

  /** Exports the unit again; requests that come early are held. False when it has to wait. */
  async #bringBack(look: number): Promise<boolean> {
    const { unit } = this;
    const { turns, exporter, openExporter, clock } = this.#options;
    this.state = 'returning';
    this.#isOutage = false;
    this.#awaySinceMs = clock.nowMs();
    unit.queue.hold();
    try {
      await turns.run(async () => {
        if (this.#isOver || this.state !== 'returning') return;
        await exporter().add(unit);
        await openExporter();
      });
    } catch (error) {
      if (!isOfTarget(error)) throw error;
      if (this.#isOver || this.state !== 'returning') return false;
      this.state = 'removed';
      this.#cancelRemoval();
      const reason = `it is back but cannot be exported yet: ${error.message}`;
      unit.queue.fail(reason);
      if (reason !== this.#whyNotBack) this.#tell({ event: 'deviceRemoved', reason });
      this.#whyNotBack = reason;
      if (look === this.#look) this.#lookLater();
      return false;
    }
    this.#whyNotBack = '';
    if (this.#isOver || this.state !== 'returning') return false;
    if (look === this.#look) return true;
    // The session went meanwhile: the export is there, and is held as in any outage.
    this.state = 'held';
    this.#setRemoval();
    return false;
  }

  async #resized(isKnown: boolean): Promise<void> {
    if (isKnown) await this.#tellExporter();
    this.#tell({ event: 'deviceResized', sizeBytes: this.unit.queue.sizeBytes });
  }

  /** The exporter's users are to see another size or write protection. */
  async #tellExporter(): Promise<void> {
    const { turns, exporter } = this.#options;
    await turns.run(async () => {
      if (!this.#isOver) await exporter().resized(this.unit);
    });
  }

  #pollLater(): void {
    const { clock } = this.#options;
    this.#cancelPoll = clock.at(clock.nowMs() + this.#pollPauseMs, () => {
      const poll = this.state === 'serving' ? this.#pollSize() : Promise.resolve();
      poll
        // A question nobody answered is asked again; what the link lost is the session's to tell.
        .catch((error: unknown) => {
          if (!isOfTarget(error)) throw error;
          this.#pollPauseMs = Math.min(2 * this.#pollPauseMs, SIZE_POLL_MS_MAX);
        })
        .then(() => {
          if (!this.#isOver) this.#pollLater();
        });
    });
  }

  async #pollSize(): Promise<void> {
    const { unit } = this;
    const count = await readBlockCount(this.#options.asker, unit.lun, this.#met);
    this.#pollPauseMs = SIZE_POLL_MS;
    if (count !== null && count !== unit.facts.blockCount) this.attended('capacityChanged');
  }

  #lookFailed(look: number, error: unknown): void {
    if (!isOfTarget(error)) throw error;
    // The next login looks again; without one (a command was aborted) we do.
    if (look === this.#look) this.#lookLater();
  }

  #lookLater(): void {
    const { clock, timers } = this.#options;
    this.#cancelNextLook = clock.at(clock.nowMs() + timers.reconnectIntervalMs, () => this.look());
  }

  #stopLooking(): void {
    this.#look += 1;
    this.#cancelNextLook();
  }

  #setRemoval(): void {
    this.#cancelRemoval();
    this.#cancelRemoval = () => undefined;
    const { clock, timers } = this.#options;
    const { removalLatencyMs } = timers;
    if (removalLatencyMs === Number.POSITIVE_INFINITY) return;
    const reason = `away for the removal latency of ${removalLatencyMs / 1000} s`;
    this.#cancelRemoval = clock.at(this.#awaySinceMs + removalLatencyMs, () => this.remove(reason));
  }

  #noteHold(): void {
    if (this.unit.queue.heldRequests === 0) return;
    const heldMs = this.#options.clock.nowMs() - this.#awaySinceMs;
    this.longestHoldMs = Math.max(this.longestHoldMs, heldMs);
  }

  #tell(news: UnitNews): void {
    this.#options.tell(this, news);
  }
}

/** Faults of the target, the network or the machine, not of this program. */
function isOfTarget(error: unknown): error is ProductError {
  return error instanceof ProductError && error.code !== 'ERR_INVARIANT';
}
