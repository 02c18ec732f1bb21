import { type Deferred, deferred } from '../base/deferred.js';
import { otherTargetMismatch } from '../bridge/disk-identity.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { keyText, type SessionRecord } from '../supervisor/session-record.js';
import { isAlike, isSame, noPath, type UnitPlace, unproven } from '../supervisor/unit-words.js';
import type { Placement, ToMain } from './worker-protocol.js';

type Home = {
  worker: number;
  /** How often it is in the worker's table: there, and tried again for ever. */
  there: number;
  /** Requests under way that may begin it. */
  requests: number;
  /** Disks that it has, or is about to have. */
  disks: readonly FoundDisk[];
  /** Where it goes when it ends here, and the caller that waits for that. */
  move: { readonly to: number; readonly done: Deferred<void> } | null;
  hasMoved: boolean;
  targetName: string;
  sessionId: string;
};

type FoundDisks = Pick<
  Extract<ToMain, { type: 'place' }>,
  'disks' | 'own' | 'mayMove' | 'targetName' | 'sessionId'
>;

/**
 * Which worker each login is in: one login is never in two, and sessions that have a disk in common
 * are in one, where they become paths of it.
 */
export class LoginHomes {
  readonly #homes = new Map<string, Home>();

  workerOf(key: string): number | undefined {
    return this.#homes.get(key)?.worker;
  }

  keysOf(worker: number): string[] {
    return [...this.#homes].filter(([, home]) => home.worker === worker).map(([key]) => key);
  }

  /** A request that may begin the login goes to this worker; `leave` when it is answered. */
  enter(key: string, worker: number): void {
    this.#homeOf(key, worker).requests += 1;
  }

  leave(key: string): void {
    const home = this.#homes.get(key);
    if (home === undefined) return;
    home.requests -= 1;
    this.#forgetIfOver(key, home);
  }

  /** The login is to be restored there, with the disks of its record. */
  assign(record: SessionRecord, worker: number): void {
    const home = this.#homeOf(keyText(record), worker);
    home.disks = record.disks;
    home.targetName = record.targetName;
    home.sessionId = record.sessionId;
  }

  begun(key: string, worker: number): void {
    this.#homeOf(key, worker).there += 1;
  }

  /** Returns where it has to be begun again; null: nowhere. */
  over(key: string, worker: number): number | null {
    const home = this.#homes.get(key);
    if (home === undefined || home.worker !== worker) return null;
    home.there -= 1;
    if (home.there > 0) return null;
    home.disks = [];
    const { move } = home;
    if (move === null) {
      this.#forgetIfOver(key, home);
      return null;
    }
    home.worker = move.to;
    home.hasMoved = true;
    home.move = null;
    move.done.resolve();
    return move.to;
  }

  /** Resolves when the login may begin in the other worker. */
  async moved(key: string): Promise<void> {
    await this.#homes.get(key)?.move?.done.promise;
  }

  /** All that the worker had is gone with it. */
  lost(worker: number): void {
    for (const home of this.#homes.values()) {
      if (home.worker !== worker) continue;
      home.there = 0;
      home.move?.done.resolve();
      home.move = null;
    }
  }

  /** Forgets what the worker was asked to restore and has not begun. */
  settle(worker: number): void {
    for (const key of this.keysOf(worker)) {
      const home = this.#homes.get(key);
      if (home !== undefined) this.#forgetIfOver(key, home);
    }
  }

  /** Where disks that a login has found may become usable. */
  place(key: string, worker: number, found: FoundDisks): Placement {
    const home = this.#homeOf(key, worker);
    const elsewhere = new Map<number, number>();
    const warnings: string[] = [];
    for (const disk of found.disks.filter(({ lun }) => !found.own.includes(lun))) {
      const others = this.#disksElsewhere(worker);
      const owner = others.find(({ place }) => isSameDisk(place.disk, disk));
      if (owner !== undefined) elsewhere.set(disk.lun, owner.worker);
      else warnings.push(...doubts(disk, found.targetName, others));
    }
    const [to] = elsewhere.values();
    // One that has moved is where its first disk is; it is not sent round.
    if (to !== undefined && found.mayMove && !home.hasMoved) {
      home.move ??= { to, done: deferred() };
      return { moveTo: to };
    }
    const here = found.disks.filter(({ lun }) => !elsewhere.has(lun));
    const luns = here.map(({ lun }) => lun);
    home.disks = [...home.disks.filter(({ lun }) => !luns.includes(lun)), ...here];
    home.targetName = found.targetName;
    home.sessionId = found.sessionId;
    return { leaveOut: [...elsewhere.keys()], warnings };
  }

  #disksElsewhere(worker: number): { readonly worker: number; readonly place: UnitPlace }[] {
    const others = [...this.#homes.values()].filter((home) => home.worker !== worker);
    return others.flatMap(({ disks, targetName, sessionId, worker: its }) =>
      disks.map((disk) => ({ worker: its, place: { disk, targetName, sessionId } })),
    );
  }

  #homeOf(key: string, worker: number): Home {
    const known = this.#homes.get(key);
    if (known !== undefined) return known;
    const home = {
      ...{ worker, there: 0, requests: 0, disks: [] },
      ...{ move: null, hasMoved: false, targetName: '', sessionId: '' },
    };
    this.#homes.set(key, home);
    return home;
  }

  #forgetIfOver(key: string, { there, requests }: Home): void {
    if (there === 0 && requests === 0) this.#homes.delete(key);
  }
}

/** What `SharedUnits` says of disks that seem to be one and are not proven to be. */
function doubts(
  disk: FoundDisk,
  targetName: string,
  others: readonly { readonly place: UnitPlace }[],
): string[] {
  const named = others.find(({ place }) => isSame(place.disk, disk))?.place;
  if (named !== undefined) {
    const why = otherTargetMismatch(named.disk.facts, disk.facts);
    return why === null ? [] : [noPath(disk, targetName, { owner: named, why })];
  }
  const like = others.find(({ place }) => isAlike(place.disk, disk))?.place;
  return like === undefined ? [] : [unproven(disk, targetName, like)];
}

/** As `SharedUnits` decides whether a disk is a path of another one. */
export function isSameDisk(one: FoundDisk, other: FoundDisk): boolean {
  return otherTargetMismatch(one.facts, other.facts) === null;
}
