import type { Clock } from '../base/clock.js';
import type { SessionState } from '../config/contract.js';
import type { SessionEffect } from '../iscsi/session/session-effect.js';
import { RemovalTimer, type RemovalTimers } from '../lun/removal-timer.js';
import type { SessionEvent } from './session-event.js';

/**
 * When a session that is reconnecting counts as `removed` (Microsoft's LoginToTarget, "Device
 * removal latency"): the removal latency has passed, and nothing waits for the session any more.
 * What becomes of each disk is decided by its own lifecycle; this is for what has no disk, and for
 * the views of the session.
 */
export class SessionOutage {
  readonly #timer: RemovalTimer;
  readonly #clock: Clock;
  readonly #isSomeHeld: () => boolean;
  readonly #onRemoved: (event: SessionEvent) => void;
  #state: 'none' | 'running' | 'due' | 'removed' = 'none';
  #reason = '';

  constructor(options: {
    readonly clock: Clock;
    readonly timers: RemovalTimers;
    /** Requests of a disk still wait. */
    readonly isSomeHeld: () => boolean;
    readonly onRemoved: (event: SessionEvent) => void;
  }) {
    const { clock, timers } = options;
    this.#clock = clock;
    this.#isSomeHeld = options.isSomeHeld;
    this.#onRemoved = options.onRemoved;
    this.#timer = new RemovalTimer({ clock, timers, due: (reason) => this.#due(reason) });
  }

  /** The state of the session as users see it. */
  view(state: Exclude<SessionState, 'removed'>): SessionState {
    return this.#state === 'removed' && state === 'reconnecting' ? 'removed' : state;
  }

  /** Instant at which it counts as removed; Infinity while that is not due. */
  get removalAtMs(): number {
    return this.#timer.dueAtMs;
  }

  /** The session has moved to another state. Returns that as users see it. */
  stateChanged(effect: Extract<SessionEffect, { type: 'stateChanged' }>): SessionEvent {
    const from = this.view(effect.from);
    if (effect.to === 'reconnecting') {
      this.#state = 'running';
      this.#timer.start(this.#clock.nowMs());
    } else {
      this.#state = 'none';
      this.#timer.stop();
    }
    return { ...effect, from };
  }

  /** The removal latency is another one; it counts from the beginning of the outage. */
  removalLatencyChanged(): void {
    this.#timer.latencyChanged();
  }

  /** A disk has been removed: it may have been the last one that something waited for. */
  lunRemoved(): void {
    if (this.#state === 'due') this.#removeIfUnused();
  }

  #due(reason: string): void {
    this.#state = 'due';
    this.#reason = reason;
    this.#removeIfUnused();
  }

  #removeIfUnused(): void {
    if (this.#isSomeHeld()) return;
    this.#state = 'removed';
    const reason = this.#reason;
    this.#onRemoved({ type: 'stateChanged', from: 'reconnecting', to: 'removed', reason });
  }
}
