import { NEVER_MS } from '../../base/clock.js';
import { LinkError } from '../../base/errors.js';
import type { Connection } from './connection.js';

const NO_DATA = Buffer.alloc(0);

/**
 * A PDU that arrives at this rate is a sign of life whatever its length: a slow link must not be
 * given up, and at this rate a PDU of the 256 KiB that we declare takes a minute.
 */
const SLOW_LINK_BYTES_PER_SECOND = 4096;

/**
 * A path is checked twice before it is called dead, with this time between: if this process
 * itself was suspended, the answers lie in the socket, which is read between two timers.
 */
const SECOND_LOOK_MS = 100;
/** A process that stands still during the second look as well has to be judged at some time. */
const LOOKS_MAX = 5;

/**
 * Signs of life on one connection (RFC 7143 §11.18 (NOP-Out)): silence for `intervalMs` asks for
 * a ping; silence for `timeoutMs` more means that the path is dead.
 *
 * Life is progress: a PDU that has ended or begun, or one that grows fast enough to end within
 * `timeoutMs`. A PDU that trickles in keeps no connection. Progress is judged when the time for a
 * ping or for its answer is up, from two counters of the reader, so that receiving costs nothing.
 * A process that was suspended has to read its socket first, so a path is checked twice.
 */
export class Keepalive {
  readonly #connection: Connection;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  #pingSentAtMs = -1;
  /** Instant of the next look at a path with a ping under way; the last look judges it. */
  #lookAtMs = NEVER_MS;
  #looks = 0;
  /** Instant of the last sign of life that is known of. */
  #lifeAtMs: number;
  /** What the reader had received at the last check. */
  #seen: { readonly atMs: number; readonly bytes: number; readonly pdu: number };

  /** `intervalMs` 0 turns the keepalive off. */
  constructor(
    connection: Connection,
    options: { readonly intervalMs: number; readonly timeoutMs: number },
  ) {
    this.#connection = connection;
    this.#intervalMs = options.intervalMs;
    this.#timeoutMs = options.timeoutMs;
    this.#lifeAtMs = connection.lastReceivedAtMs;
    this.#seen = this.#look(this.#lifeAtMs);
  }

  /** Instant at which `timeReached` has something to do. */
  get deadlineAtMs(): number {
    if (this.#intervalMs <= 0 || !this.#connection.isLoggedIn) return NEVER_MS;
    return this.#isPinged ? this.#lookAtMs : this.#lifeAtMs + this.#intervalMs;
  }

  /** Sends the ping that is due; throws LinkError when the path is dead. */
  timeReached(nowMs: number): void {
    if (nowMs < this.deadlineAtMs) return;
    const seen = this.#seen;
    if (this.#isProgress(nowMs)) this.#lifeAtMs = this.#connection.lastReceivedAtMs;
    if (nowMs < this.deadlineAtMs) return;
    if (this.#isPinged) {
      if (this.#isLookedAtAgain(nowMs)) {
        // One look over all of the time, since a few bytes in a moment are no rate.
        this.#seen = seen;
        return;
      }
      const silentSeconds = ((nowMs - this.#lifeAtMs) / 1000).toFixed(1);
      throw new LinkError('ETIMEDOUT', `no sign of life for ${silentSeconds} s`);
    }
    this.#pingSentAtMs = nowMs;
    this.#lookAtMs = nowMs + Math.max(0, this.#timeoutMs - SECOND_LOOK_MS);
    this.#looks = 0;
    this.#connection.send.nopOut(NO_DATA);
  }

  /** A ping has been sent since the last sign of life. */
  get #isPinged(): boolean {
    return this.#pingSentAtMs > this.#lifeAtMs;
  }

  /** True after the first look, and after one that comes late: a later one judges the path. */
  #isLookedAtAgain(nowMs: number): boolean {
    const isLate = nowMs >= this.#lookAtMs + SECOND_LOOK_MS;
    if (this.#looks >= (isLate ? LOOKS_MAX : 1)) return false;
    this.#looks += 1;
    this.#lookAtMs = nowMs + SECOND_LOOK_MS;
    return true;
  }

  #look(nowMs: number): { readonly atMs: number; readonly bytes: number; readonly pdu: number } {
    const { fedBytes, pdusEnded, missingBytes } = this.#connection.reader;
    // Every PDU has two numbers: one before it begins, and one while it arrives.
    return { atMs: nowMs, bytes: fedBytes, pdu: 2 * pdusEnded + (missingBytes > 0 ? 1 : 0) };
  }

  /** True if what came since the last look is a sign of life. */
  #isProgress(nowMs: number): boolean {
    const before = this.#seen;
    const now = this.#look(nowMs);
    this.#seen = now;
    if (now.pdu !== before.pdu) return true;
    const bytes = now.bytes - before.bytes;
    const elapsedMs = now.atMs - before.atMs;
    if (bytes === 0) return false;
    const missingMs = (this.#connection.reader.missingBytes * elapsedMs) / bytes;
    return missingMs <= this.#timeoutMs || bytes * 1000 >= SLOW_LINK_BYTES_PER_SECOND * elapsedMs;
  }
}
