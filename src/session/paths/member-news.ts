import type { EventBody } from '../../config/contract.js';
import type { SessionTimers } from '../../iscsi/session/session-config.js';
import { AttemptReporter } from '../attempt-reporter.js';
import type { SessionEvent } from '../session-event.js';
import { eventOf } from '../warning-text.js';
import type { PathMember } from './path-member.js';

/** Longest pause between two attempts to reach a portal that has never let us log in. */
const UNKNOWN_PAUSE_MS_MAX = 60_000;

/**
 * Publishes what the session of a path tells, as that of the first session is published. A portal
 * that has never let us log in, as one of a network that this host is not in, is tried at a growing
 * pause.
 */
export class MemberNews {
  readonly #member: PathMember;
  readonly #emit: (body: EventBody) => void;
  readonly #attempts: AttemptReporter;
  readonly #ofFirst: Pick<SessionTimers, 'reconnectIntervalMs'>;
  #isKnown = false;

  /** `ofFirst`: the timers of the first session. */
  constructor(
    member: PathMember,
    ofFirst: Pick<SessionTimers, 'reconnectIntervalMs'>,
    emit: (body: EventBody) => void,
  ) {
    this.#member = member;
    this.#emit = emit;
    this.#ofFirst = ofFirst;
    this.#attempts = new AttemptReporter({
      refused: (refusal) => emit({ event: 'loginRefused', ...refusal }),
      failed: (message) => emit({ event: 'warning', message: `path ${member.name}: ${message}` }),
    });
  }

  heard(event: SessionEvent): void {
    switch (event.type) {
      case 'stateChanged': {
        const { from, to, reason } = event;
        if (to === 'loggedIn') this.#loggedIn();
        this.#emit({ event: 'sessionState', from, to, reason });
        return;
      }
      case 'attemptFailed':
        // No option and no login named it: `paths` shows why it is down.
        if (this.#isKnown || !this.#member.isSpare) this.#attempts.failed(event.error);
        this.#waitLonger();
        return;
      default: {
        const body = eventOf(event);
        if (body !== null) this.#emit(body);
      }
    }
  }

  #loggedIn(): void {
    this.#attempts.succeeded();
    const { reconnectIntervalMs } = this.#ofFirst;
    if (!this.#isKnown)
      this.#member.client.session.timers.reconnectIntervalMs = reconnectIntervalMs;
    this.#isKnown = true;
  }

  #waitLonger(): void {
    const { timers } = this.#member.client.session;
    if (this.#isKnown || timers.reconnectIntervalMs >= UNKNOWN_PAUSE_MS_MAX) return;
    const doubled = timers.reconnectIntervalMs * 2;
    timers.reconnectIntervalMs = Math.min(doubled, UNKNOWN_PAUSE_MS_MAX);
  }
}
