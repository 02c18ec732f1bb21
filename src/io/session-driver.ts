import { type Clock, NEVER_MS } from '../base/clock.js';
import { invariant, type ProductError } from '../base/errors.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { Session } from '../iscsi/session/session.js';
import type { LinkEnd, SessionEffect } from '../iscsi/session/session-effect.js';
import type { LunField, ScsiCommand, ScsiPort } from '../scsi/command.js';
import { LatencyHistogram } from './latency-histogram.js';
import type { SendBatch } from './send-batch.js';
import type { Transport, TransportAddresses, TransportOpener, TransportUser } from './transport.js';
import { TurnClock } from './turn-clock.js';

/** Longest single timer; a later deadline is checked again then. */
const TIMER_MS_MAX = 3_600_000;

/**
 * Drives one session: its links, its one timer, its effects. Commands with an outcome go back to
 * their owners here, after the effects of the same input, so that an owner already knows the
 * session's new state.
 */
export class SessionDriver implements ScsiPort {
  readonly session: Session;
  /** From submission to outcome, of the commands the target answered. */
  readonly latency = new LatencyHistogram();
  commandsSubmitted = 0;
  readonly #openLink: TransportOpener;
  readonly #flushes: SendBatch;
  readonly #clock: Clock;
  /** For what there is a lot of in a turn; an outage begins when it is seen. */
  readonly #turnClock: TurnClock;
  readonly #onEffect: (effect: SessionEffect) => void;
  readonly #onSettled: () => void;
  readonly #onAllSent: () => void;
  #link: Transport | null = null;
  #cancelTimer: (() => void) | null = null;
  #timerAtMs = NEVER_MS;
  #draining = false;
  #bytesBefore = { received: 0, sent: 0 };

  constructor(options: {
    readonly session: Session;
    readonly openLink: TransportOpener;
    readonly flushes: SendBatch;
    readonly clock: Clock;
    /** Told of every effect, links included, in order. */
    readonly onEffect: (effect: SessionEffect) => void;
    /**
     * Effects have been performed and the commands that ended with them are back at their owners.
     */
    readonly onSettled?: () => void;
    /** The link has taken all that was queued for the target, or may be another one now. */
    readonly onAllSent?: () => void;
  }) {
    this.session = options.session;
    this.#openLink = options.openLink;
    this.#flushes = options.flushes;
    this.#clock = options.clock;
    this.#turnClock = new TurnClock(options.clock, options.flushes);
    this.#onEffect = options.onEffect;
    this.#onSettled = options.onSettled ?? (() => undefined);
    this.#onAllSent = options.onAllSent ?? (() => undefined);
  }

  start(): void {
    this.session.start(this.#clock.nowMs());
    this.#drain();
  }

  /** Runs `input` on the session and does what follows from it. */
  dispatch<T>(input: (session: Session, nowMs: number) => T): T {
    const result = input(this.session, this.#clock.nowMs());
    this.#drain();
    return result;
  }

  submit(command: ScsiCommand): void {
    this.commandsSubmitted += 1;
    this.session.submit(command, this.#turnClock.nowMs());
    if (!this.#draining && this.session.completed.length > 0) this.#drain();
    else this.#schedule();
  }

  recall(lun: LunField): void {
    this.session.flow.recall(lun);
    if (!this.#draining) this.#drain();
  }

  /** Bytes that wait for the link. */
  get backlogBytes(): number {
    return this.session.connection?.queue.byteLength ?? 0;
  }

  /** Bytes over all links of the session. */
  get bytesReceivedTotal(): number {
    return this.#bytesBefore.received + (this.#link?.bytesReceivedTotal ?? 0);
  }
  get bytesSentTotal(): number {
    return this.#bytesBefore.sent + (this.#link?.bytesSentTotal ?? 0);
  }

  /** The ends of the link that is there now. */
  linkAddresses(): TransportAddresses | null {
    return this.#link?.addresses?.() ?? null;
  }

  #drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    const { effects, completed } = this.session;
    let hadEffects = false;
    while (effects.length > 0 || completed.length > 0) {
      for (let index = 0; index < effects.length; index += 1) {
        const effect = effects[index];
        if (effect !== undefined) this.#perform(effect);
      }
      if (effects.length > 0) {
        hadEffects = true;
        effects.length = 0;
      }
      let done = 0;
      const nowMs = completed.length > 0 ? this.#turnClock.nowMs() : 0;
      // An owner's next step may change the session's state: its effects come first again.
      while (done < completed.length && effects.length === 0) {
        const command = completed[done];
        done += 1;
        if (command === undefined) continue;
        if (command.outcome === 'answered') this.latency.add(nowMs - command.submittedAtMs);
        this.session.flow.tell(command, nowMs);
      }
      if (done < completed.length) completed.splice(0, done);
      else while (completed.length > 0) completed.pop();
    }
    this.#draining = false;
    this.#schedule();
    if (!hadEffects) return;
    this.#onSettled();
    this.#onAllSent();
  }

  #perform(effect: SessionEffect): void {
    if (effect.type === 'openLink') this.#beginLink(effect.portal);
    if (effect.type === 'closeLink') this.#closeLink(effect.end);
    this.#onEffect(effect);
  }

  #beginLink(portal: PortalAddress): void {
    const { connection } = this.session;
    // The same input may have ended the attempt again; its `closeLink` follows then.
    if (connection === null) return;
    invariant(this.#link === null, 'a second link for one connection');
    const user: TransportUser = {
      linkOpened: () => this.dispatch((session, nowMs) => session.linkOpened(nowMs)),
      bytesReceived: (slab, buffer, start, end) => {
        this.session.bytesReceived(slab, buffer, start, end, this.#turnClock.nowMs());
        this.#drain();
        return true;
      },
      allSent: () => this.#onAllSent(),
      linkFailed: (error) => this.#linkFailed(error),
    };
    this.#link = this.#openLink(portal, connection.queue, user);
  }

  #linkFailed(error: ProductError): void {
    this.dispatch((session, nowMs) => session.linkFailed(error, nowMs));
  }

  #closeLink(end: LinkEnd): void {
    const link = this.#link;
    if (link === null) return;
    this.#link = null;
    this.#bytesBefore.received += link.bytesReceivedTotal;
    this.#bytesBefore.sent += link.bytesSentTotal;
    link.close(end);
  }

  #schedule(): void {
    const deadlineAtMs = this.session.deadlineAtMs;
    // A session that is over keeps no timer, and with it the process, alive.
    const isOver = deadlineAtMs === NEVER_MS && this.session.state === 'closed';
    if (deadlineAtMs >= this.#timerAtMs && !isOver) return;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#timerAtMs = NEVER_MS;
    if (isOver) return;
    const nowMs = this.#clock.nowMs();
    this.#timerAtMs = Math.min(deadlineAtMs, nowMs + TIMER_MS_MAX);
    this.#cancelTimer = this.#clock.at(this.#timerAtMs, () => this.#timerRang());
  }

  #timerRang(): void {
    this.#timerAtMs = NEVER_MS;
    this.#cancelTimer = null;
    const nowMs = this.#clock.nowMs();
    this.#flushes.begin();
    if (nowMs >= this.session.deadlineAtMs) this.session.timeReached(nowMs);
    this.#drain();
    this.#flushes.end();
  }
}
