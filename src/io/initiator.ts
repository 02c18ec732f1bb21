import { type Clock, NEVER_MS } from '../base/clock.js';
import { invariant, LinkError, ProductError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import { formatPortal, type PortalAddress } from '../iscsi/portal.js';
import type { Session } from '../iscsi/session.js';
import type { SessionEffect } from '../iscsi/session-effect.js';
import type { ScsiCommand, ScsiPort } from '../scsi/command.js';
import type { FlushList } from './flush-list.js';
import { LatencyHistogram } from './latency-histogram.js';
import { PumpedSocket, type SocketUser } from './pumped-socket.js';
import { connectTcp } from './tcp-link.js';

/** Longest single timer; a later deadline is looked at again then. */
const TIMER_MS_MAX = 3_600_000;

/**
 * Drives one session: its links, its one timer, its effects. Commands with an outcome go back to
 * their owners here, after the effects of the same input, so that an owner already knows the
 * session's new state.
 */
export class Initiator implements ScsiPort, SocketUser {
  readonly session: Session;
  /** From submission to outcome, of the commands the target answered. */
  readonly latency = new LatencyHistogram();
  commandsSubmitted = 0;
  readonly #pool: SlabPool;
  readonly #flushes: FlushList;
  readonly #clock: Clock;
  readonly #onEffect: (effect: SessionEffect) => void;
  #socket: PumpedSocket | null = null;
  #connecting: AbortController | null = null;
  #cancelTimer: (() => void) | null = null;
  #timerAtMs = NEVER_MS;
  #draining = false;
  #bytesBefore = { received: 0, sent: 0 };

  constructor(options: {
    readonly session: Session;
    readonly pool: SlabPool;
    readonly flushes: FlushList;
    readonly clock: Clock;
    /** Told of every effect, links included, in order. */
    readonly onEffect: (effect: SessionEffect) => void;
  }) {
    this.session = options.session;
    this.#pool = options.pool;
    this.#flushes = options.flushes;
    this.#clock = options.clock;
    this.#onEffect = options.onEffect;
  }

  start(): void {
    this.session.start(this.#clock.nowMs());
    this.#drain();
  }

  /** Runs `input` on the session and does what follows from it. */
  with<T>(input: (session: Session, nowMs: number) => T): T {
    const result = input(this.session, this.#clock.nowMs());
    this.#drain();
    return result;
  }

  submit(command: ScsiCommand): void {
    this.commandsSubmitted += 1;
    this.session.submit(command, this.#clock.nowMs());
    if (!this.#draining && this.session.completed.length > 0) this.#drain();
    else this.#schedule();
  }

  /** Bytes over all links of the session. */
  get bytesReceivedTotal(): number {
    return this.#bytesBefore.received + (this.#socket?.bytesReceivedTotal ?? 0);
  }
  get bytesSentTotal(): number {
    return this.#bytesBefore.sent + (this.#socket?.bytesSentTotal ?? 0);
  }

  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    this.session.bytesReceived(slab, buffer, start, end, this.#clock.nowMs());
    this.#drain();
    return true;
  }

  linkLost(errno: string | null): void {
    const portal = this.session.portal ?? this.session.portals.current;
    const where = formatPortal(portal);
    const error =
      errno === null
        ? new LinkError('ECONNRESET', `the target at ${where} closed the connection`)
        : new LinkError(errno, `the connection to ${where} failed (${errno})`);
    this.session.linkFailed(error, this.#clock.nowMs());
    this.#drain();
  }

  sent(): void {}

  #drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    const { effects, completed } = this.session;
    while (effects.length > 0 || completed.length > 0) {
      for (let index = 0; index < effects.length; index += 1) {
        const effect = effects[index];
        if (effect !== undefined) this.#perform(effect);
      }
      effects.length = 0;
      let done = 0;
      const nowMs = completed.length > 0 ? this.#clock.nowMs() : 0;
      // An owner's next step may change the session's state: its effects come first again.
      while (done < completed.length && effects.length === 0) {
        const command = completed[done];
        done += 1;
        if (command === undefined) continue;
        if (command.outcome === 'answered') this.latency.add(nowMs - command.submittedAtMs);
        command.owner.scsiCommandDone(command);
      }
      if (done === completed.length) completed.length = 0;
      else completed.splice(0, done);
    }
    this.#draining = false;
    this.#schedule();
  }

  #perform(effect: SessionEffect): void {
    if (effect.type === 'openLink') this.#openLink(effect.portal);
    if (effect.type === 'closeLink') this.#closeLink();
    this.#onEffect(effect);
  }

  #openLink(portal: PortalAddress): void {
    const connecting = new AbortController();
    this.#connecting = connecting;
    connectTcp(portal, connecting.signal).then(
      (fd) => this.#connected(fd, connecting),
      (error: unknown) => {
        if (this.#connecting !== connecting) return;
        this.#connecting = null;
        if (!(error instanceof ProductError)) throw error;
        this.with((session, nowMs) => session.linkFailed(error, nowMs));
      },
    );
  }

  #connected(fd: number, connecting: AbortController): void {
    const { connection } = this.session;
    invariant(this.#connecting === connecting && connection, 'a link nobody waits for');
    this.#connecting = null;
    this.#socket = new PumpedSocket({
      fd,
      pool: this.#pool,
      queue: connection.queue,
      flushes: this.#flushes,
      user: this,
    });
    this.with((session, nowMs) => session.linkOpened(nowMs));
  }

  #closeLink(): void {
    const connecting = this.#connecting;
    this.#connecting = null;
    connecting?.abort();
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    this.#bytesBefore.received += socket.bytesReceivedTotal;
    this.#bytesBefore.sent += socket.bytesSentTotal;
    socket.close();
  }

  #schedule(): void {
    const deadlineAtMs = this.session.deadlineAtMs;
    if (deadlineAtMs >= this.#timerAtMs) return;
    this.#cancelTimer?.();
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
