import { type Clock, pause } from '../../base/clock.js';
import { productError } from '../../base/errors.js';
import type { Path } from '../../bridge/paths/path.js';
import type { Fence, PathsPort } from '../../bridge/paths/paths-port.js';
import type { PathCheck } from './path-check.js';
import type { OwnReset, UnitPath } from './unit-path.js';

/** Pause between two attempts to prove that old tasks are over. */
const RETRY_MS = 1000;
/**
 * Writes wait for a proof at most so long; then an outage begins, as if no path could be used. A
 * target answers a reset within some seconds, or does not do any.
 */
const PROOF_MS_MAX = 10_000;

/** Over which paths the unit may report it. */
type AskedReset = ReadonlyMap<UnitPath, OwnReset>;

type FenceProofOptions = {
  readonly lun: number;
  readonly clock: Clock;
  readonly port: PathsPort;
  readonly check: Pick<PathCheck, 'isReady'>;
  /** Paths that can be used. */
  readonly ready: () => readonly UnitPath[];
  /** What was taken for the report of a reset of ours counts: the target has not done that one. */
  readonly wasNotOurs: (each: UnitPath) => void;
  /** The unit has been reset, and may have its saved mode parameters again. */
  readonly wasReset: () => void;
  /** A fence has become too old, or is not any more. */
  readonly changed: (reason: string) => void;
};

/**
 * Has the old writes of a path that is gone ended, and knows since when that has been wanted. The
 * means in their order: the session is logged in again as the same nexus, or the target answers a
 * LOGICAL UNIT RESET over a path that can be used. Each reset proves one fence, which was there
 * before it was asked for.
 */
export class FenceProof {
  readonly #options: FenceProofOptions;
  /** Fences that have not been proven over in time. */
  readonly #overdue = new Set<Fence>();
  readonly #cancels = new Map<Fence, () => void>();
  /** The reset for the fence that has no answer yet. */
  readonly #asked = new Map<Fence, AskedReset>();
  #isClosed = false;

  constructor(options: FenceProofOptions) {
    this.#options = options;
  }

  /** A proof that old writes have ended is late: the target may still do them. */
  get isOverdue(): boolean {
    return this.#overdue.size > 0;
  }

  begin(fence: Fence): void {
    if (this.#isClosed) return;
    const { clock, changed } = this.#options;
    const cancel = clock.at(clock.nowMs() + PROOF_MS_MAX, () => {
      this.#overdue.add(fence);
      changed(
        `the target may still do writes of ${fence.path?.name ?? 'the process before'}: it has ` +
          `answered no LOGICAL UNIT RESET for ${PROOF_MS_MAX / 1000} s`,
      );
    });
    this.#cancels.set(fence, cancel);
    void this.#resetting(fence);
  }

  /** The session of the path is logged in again: what the same nexus had is over. */
  loggedIn(path: Path): void {
    const { nexus } = path;
    for (const fence of this.#options.port.fences) {
      if (fence.path !== path || nexus === null || fence.nexus !== nexus) continue;
      this.#notDone(fence);
      this.#over(fence);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const cancel of this.#cancels.values()) cancel();
    this.#cancels.clear();
  }

  async #resetting(fence: Fence): Promise<void> {
    const { lun, clock, port, ready } = this.#options;
    for (let tries = 0; !this.#isClosed && port.isFencing(fence); tries += 1) {
      const all = ready();
      const by = all[tries % Math.max(1, all.length)];
      const asked = askedOver(all);
      this.#asked.set(fence, asked);
      // Over a path that is in doubt since, it may have been the reset of another disk.
      if (by !== undefined && (await by.member.resetUnit(lun)) && by.path.state === 'ready') {
        this.#asked.delete(fence);
        this.#over(fence);
        await Promise.all([...asked].map(([each, reset]) => this.#hear(each, reset)));
        if (!this.#isClosed) this.#options.wasReset();
        return;
      }
      this.#notDone(fence);
      await pause(clock, RETRY_MS);
    }
  }

  /** Has the unit report the reset now, if it does: later it would be another's. */
  async #hear({ member, ownResets }: UnitPath, reset: OwnReset): Promise<void> {
    const isDue = !this.#isClosed && !reset.isMet;
    if (isDue) await this.#options.check.isReady(member).catch(productError);
    ownResets.delete(reset);
  }

  /** The target has refused the reset, or has not said that it has done it. */
  #notDone(fence: Fence): void {
    const asked = this.#asked.get(fence) ?? [];
    this.#asked.delete(fence);
    for (const [each, reset] of asked) {
      each.ownResets.delete(reset);
      if (reset.isMet && !this.#isClosed) this.#options.wasNotOurs(each);
    }
  }

  #over(fence: Fence): void {
    this.#cancels.get(fence)?.();
    this.#cancels.delete(fence);
    const wasOverdue = this.#overdue.delete(fence);
    this.#options.port.provenOver(fence);
    if (wasOverdue) this.#options.changed('the old writes have ended');
  }
}

/** A reset is requested, which the unit may report over each of the paths. */
function askedOver(all: readonly UnitPath[]): AskedReset {
  const asked = new Map<UnitPath, OwnReset>();
  for (const each of all) {
    const reset = { isMet: false };
    asked.set(each, reset);
    each.ownResets.add(reset);
  }
  return asked;
}
