import type { Budget, BudgetPart } from './budget.js';

/**
 * What the clients of one logical unit have under way, within the budget of the session. Each unit
 * has a part of that budget guaranteed, so that a unit whose target does not answer, or whose
 * requests are held, does not stop the others.
 */
export class UnitBudget implements BudgetPart {
  readonly session: Budget;
  requests = 0;
  bytes = 0;
  /** Ended units have no guarantee; what they still have under way counts for the session. */
  isOpen = true;
  readonly #waiting = new Set<() => void>();

  constructor(session: Budget) {
    this.session = session;
    session.join(this);
  }

  /**
   * True when one more request may begin: within the unit's guarantee, or in what is left when the
   * guarantees of the other units are kept free. The last one may go over the maximum in bytes.
   */
  get hasRoom(): boolean {
    const { session } = this;
    if (!this.isOpen) return true;
    return (
      (this.requests < session.requestsGuaranteed ||
        session.requests + session.requestsReserved < session.requestsMax) &&
      (this.bytes < session.bytesGuaranteed ||
        session.bytes + session.bytesReserved < session.bytesMax) &&
      session.mayGrow
    );
  }

  take(bytes: number): void {
    const { session } = this;
    if (session.isShared && this.isOpen) {
      if (this.requests < session.requestsGuaranteed) session.requestsReserved -= 1;
      session.bytesReserved -= Math.min(bytes, this.bytesUnused);
    }
    this.requests += 1;
    this.bytes += bytes;
    session.requests += 1;
    session.bytes += bytes;
  }

  /** A request that has begun has so many more bytes. */
  grow(bytes: number): void {
    const { session } = this;
    if (session.isShared && this.isOpen) session.bytesReserved -= Math.min(bytes, this.bytesUnused);
    this.bytes += bytes;
    session.bytes += bytes;
  }

  give(bytes: number): void {
    const { session } = this;
    this.requests -= 1;
    this.bytes -= bytes;
    session.requests -= 1;
    session.bytes -= bytes;
    if (session.isShared && this.isOpen) {
      if (this.requests < session.requestsGuaranteed) session.requestsReserved += 1;
      session.bytesReserved += Math.min(bytes, this.bytesUnused);
    }
    if (session.waitingCount > 0) session.resume();
  }

  get bytesUnused(): number {
    return Math.max(0, this.session.bytesGuaranteed - this.bytes);
  }

  /** Calls `resume` once when there is room again; clients are served in turn. */
  whenRoom(resume: () => void): void {
    if (this.#waiting.has(resume)) return;
    this.#waiting.add(resume);
    this.session.waitingCount += 1;
  }

  /** The client that gave `resume` is gone. */
  forget(resume: () => void): void {
    if (this.#waiting.delete(resume)) this.session.waitingCount -= 1;
  }

  /** Clients are served in turn. */
  resumeOne(): boolean {
    const [resume] = this.#waiting;
    if (resume === undefined || !this.hasRoom) return false;
    this.forget(resume);
    resume();
    return true;
  }

  /** The unit has ended: its requests fail at once, and its guarantee is for the others. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.session.leave(this);
    while (this.resumeOne()) {}
  }
}
