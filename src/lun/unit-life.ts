import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.js';
import { productError } from '../base/errors.js';
import type { Turns } from '../base/turns.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention, VerdictAction } from '../scsi/sense-table.js';
import type { LunExporter } from './lun-exporter.js';
import { RemovalClock } from './removal-clock.js';
import { SizePoll } from './size-poll.js';
import { type Finding, UnitQuestions } from './unit-questions.js';

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
  /** One command over the session as it is now; `onSent` is called when it leaves. */
  readonly execute: (request: ScsiRequest, onSent: () => void) => Promise<ScsiAnswer>;
  readonly clock: Clock;
  /** The exporter's work, in order over all units of a session. */
  readonly turns: Turns;
  /** See the option of that name. */
  readonly allowUnidentified: boolean;
  readonly timers: { readonly removalLatencyMs: number; readonly reconnectIntervalMs: number };
  readonly exporter: () => LunExporter;
  /** The unit has the facts of a look that has found it to be the same. */
  readonly factsRead: (unit: LunUnit) => void;
  /** Opens what the exporter serves on, where that went with the last unit. */
  readonly openExporter: () => Promise<void>;
  readonly tell: (life: UnitLife, news: UnitNews) => void;
};

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
  readonly #questions: UnitQuestions;
  readonly #removal: RemovalClock;
  readonly #poll: SizePoll;
  #cancelNextLook: () => void = () => undefined;
  #hasToldHeld = false;
  /** What the exporter, and those who use it, know of the disk. */
  #exported: DiskFacts;
  #isLooking = false;
  /** Resolves when the export under way is over, however it ends. */
  #exporting: Promise<void> = Promise.resolve();
  /** Why it could not be exported again, as last told. */
  #whyNotBack = '';
  /** The session was lost since the unit last served; else it is held for a look only. */
  #isOutage = false;
  #isOver = false;
  /** Resolves those who wait for the end of the look under way. */
  #lookWaiters: (() => void)[] = [];
  constructor(options: UnitLifeOptions) {
    const { unit, clock, timers } = options;
    this.unit = unit;
    this.#options = options;
    this.#exported = unit.facts;
    this.#questions = new UnitQuestions(options, () => this.#asked());
    this.#removal = new RemovalClock({ clock, timers, due: (reason) => this.remove(reason) });
    this.#poll = new SizePoll({
      clock,
      ask: () => (this.state === 'serving' ? this.#questions.blockCount() : null),
      changed: () => this.attended('capacityChanged'),
      blockCount: () => unit.facts.blockCount,
    });
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
    this.#isLooking = true;
    this.#lookAt(look)
      .catch((error: unknown) => this.#lookFailed(look, error))
      .finally(() => {
        if (look === this.#look) this.#lookEnded();
      });
  }

  /** It is there, and its requests wait. */
  get isHeld(): boolean {
    return this.state === 'held' || this.state === 'returning';
  }

  get isLooking(): boolean {
    return this.#isLooking;
  }

  /** Resolves when a look ends, by its finding or by what took its place; at `untilMs` at last. */
  looked(untilMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const cancel = this.#options.clock.at(untilMs, done);
      signal?.addEventListener('abort', done, { once: true });
      this.#lookWaiters.push(done);
    });
  }

  /**
   * The disk asks for attention, in words of the sense table. While it is being looked at, what has
   * been found so far may be about the disk before.
   */
  attended(attention: Attention): void {
    if (this.#questions.attended(attention)) this.lookAgain();
  }

  /**
   * A question of whoever met an attention of this unit. A LUN that is gone says so at every look,
   * which is no news.
   */
  questionMet(attention: Attention, action: VerdictAction): void {
    if (action === 'fail' && this.state !== 'serving') return;
    this.unit.disk.attended(attention, 'told to a question of ours');
  }

  /** Looks at the disk if it serves; else it is being looked at, or will be. */
  lookAgain(): void {
    if (this.state !== 'serving') return;
    this.#beginHold();
    this.look();
  }

  /** The removal latency has been changed; it counts from when the unit went away. */
  removalLatencyChanged(): void {
    if (this.state === 'held') this.#startRemoval();
  }

  /** What is held fails now, and the export or device is taken away. */
  remove(reason: string): void {
    if (this.state === 'removed' || this.#isOver) return;
    this.#noteHold();
    this.#removal.stop();
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
          const { message } = productError(error);
          const why = `${reason}; it could not be taken away: ${message}`;
          this.#tell({ event: 'deviceRemoved', reason: why });
        },
      );
  }

  /** Nothing happens to the unit any more; its requests fail. */
  end(reason: string): void {
    this.#noteHold();
    this.#isOver = true;
    this.#poll.stop();
    this.#stopLooking();
    this.#removal.stop();
    this.state = 'removed';
    this.unit.queue.fail(reason);
    this.unit.close();
  }

  #beginHold(): void {
    this.#awaySinceMs = this.#options.clock.nowMs();
    if (this.state === 'returning') return;
    this.state = 'held';
    this.unit.hold();
    this.#startRemoval();
  }

  /** A question of the look has left for the target. */
  #asked(): void {
    if (this.state !== 'held' || !this.#removal.isOverdue) return;
    // Until now it was not the disk that kept us waiting.
    this.#awaySinceMs = this.#options.clock.nowMs();
    this.#startRemoval();
  }

  async #lookAt(look: number): Promise<void> {
    const finding = await this.#questions.find({
      isOutage: this.#isOutage,
      isRemoved: this.state === 'removed',
    });
    if (look !== this.#look) return;
    switch (finding.is) {
      case 'same':
        await this.#admit(finding, look);
        return;
      case 'other':
        this.remove(finding.why);
        break;
      case 'absent':
      case 'untold':
    }
    if (look === this.#look) this.#lookLater();
  }

  async #admit(finding: Extract<Finding, { is: 'same' }>, look: number): Promise<void> {
    const { facts } = finding;
    const { unit } = this;
    if (this.state === 'returning') {
      // A look before this one has begun to export it, and waits for its turn: that comes first.
      await this.#exporting;
      if (look === this.#look) this.look();
      return;
    }
    unit.disk.facts = facts;
    this.#options.factsRead(unit);
    const wasRemoved = this.state === 'removed';
    if (wasRemoved && !(await this.#bringBack(look))) return;
    // A process that takes over relies on what is written down: before the next acknowledgement.
    if (!isDeepStrictEqual(this.#exported, facts)) {
      await this.#options.exporter().keepFacts?.(unit);
    }
    if (look !== this.#look) return;
    if (finding.attentions !== this.#questions.attentions) {
      if (wasRemoved) this.#heldInsteadOfBack();
      this.look();
      return;
    }
    this.#noteHold();
    this.#removal.stop();
    this.state = 'serving';
    this.#isOutage = false;
    this.#questions.admitted();
    unit.queue.release();
    if (wasRemoved) this.#tell({ event: 'deviceAttached' });
    else if (this.#hasToldHeld) this.#tell({ event: 'deviceReleased' });
    this.#hasToldHeld = false;
    const before = this.#exported;
    this.#exported = facts;
    if (facts.blockCount !== before.blockCount) await this.#resized(!wasRemoved);
    else if (facts.readOnly !== before.readOnly && !wasRemoved) await this.#tellExporter();
  }

  /** Exports the unit again; requests that come early are held. False when it has to wait. */
  async #bringBack(look: number): Promise<boolean> {
    const { unit } = this;
    const { turns, exporter, openExporter, clock } = this.#options;
    this.state = 'returning';
    this.#isOutage = false;
    this.#awaySinceMs = clock.nowMs();
    unit.hold();
    const exported = turns.run(async () => {
      if (this.#isOver || this.state !== 'returning') return;
      await exporter().add(unit);
      await openExporter();
    });
    this.#exporting = exported.catch(() => undefined);
    try {
      await exported;
    } catch (error) {
      const { message } = productError(error);
      if (this.#isOver || this.state !== 'returning') return false;
      this.state = 'removed';
      this.#removal.stop();
      const reason = `it is back but cannot be exported yet: ${message}`;
      unit.queue.fail(reason);
      if (reason !== this.#whyNotBack) this.#tell({ event: 'deviceRemoved', reason });
      this.#whyNotBack = reason;
      if (look === this.#look) this.#lookLater();
      return false;
    }
    this.#whyNotBack = '';
    if (this.#isOver || this.state !== 'returning') return false;
    if (look === this.#look) return true;
    this.#heldInsteadOfBack();
    return false;
  }

  /** The session went meanwhile, or the disk has to be looked at again: the export is there. */
  #heldInsteadOfBack(): void {
    this.state = 'held';
    this.#startRemoval();
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

  #lookFailed(look: number, error: unknown): void {
    productError(error);
    // The next login looks again; without one (a command was aborted) we do.
    if (look === this.#look) this.#lookLater();
  }

  #lookLater(): void {
    const { clock, timers } = this.#options;
    this.#cancelNextLook = clock.at(clock.nowMs() + timers.reconnectIntervalMs, () => this.look());
  }

  #stopLooking(): void {
    this.#look += 1;
    this.#questions.abandoned();
    this.#cancelNextLook();
    this.#lookEnded();
  }

  #lookEnded(): void {
    this.#isLooking = false;
    for (const waiter of this.#lookWaiters.splice(0)) waiter();
  }

  /** An outage is the session's; else the time counts only while the disk has been asked. */
  #startRemoval(): void {
    this.#removal.start(this.#awaySinceMs, () => this.#questions.isUnsent && !this.#isOutage);
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
