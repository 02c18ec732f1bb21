import type { Clock } from '../../base/clock.js';
import type { PathMember } from './path-member.js';

/** A session that ends so soon before or after the login of a spare path counts as ended by it. */
const SOON_MS = 1000;
/** Logins in succession, each of which has ended another session. */
const TIMES_MAX = 3;

type Login = { readonly spare: PathMember; readonly atMs: number; isHarmful: boolean };

/**
 * Finds the spare path whose logins end other sessions: there are targets that allow an initiator
 * one session and end the old one. It was not requested by name, so it goes.
 */
export class SpareHarm {
  readonly #clock: Clock;
  readonly #times = new Map<PathMember, number>();
  #login: Login | null = null;
  #lost: { readonly member: PathMember; readonly atMs: number } | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Returns the spare path that has to go; null if there is none. */
  loggedIn(member: PathMember): PathMember | null {
    if (!member.isSpare) return null;
    if (this.#login?.spare === member && !this.#login.isHarmful) this.#times.delete(member);
    this.#login = { spare: member, atMs: this.#clock.nowMs(), isHarmful: false };
    return this.#judge();
  }

  /** As `loggedIn`. */
  lost(member: PathMember): PathMember | null {
    this.#lost = { member, atMs: this.#clock.nowMs() };
    return this.#judge();
  }

  #judge(): PathMember | null {
    const [login, lost] = [this.#login, this.#lost];
    if (login === null || lost === null || login.isHarmful || lost.member === login.spare) {
      return null;
    }
    if (Math.abs(login.atMs - lost.atMs) > SOON_MS) return null;
    login.isHarmful = true;
    const times = (this.#times.get(login.spare) ?? 0) + 1;
    this.#times.set(login.spare, times);
    return times === TIMES_MAX ? login.spare : null;
  }
}
