import { isDeepStrictEqual } from 'node:util';
import { InvariantError } from '../base/errors.js';
import { otherTargetMismatch } from '../bridge/disk-identity.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { lunFieldToHex } from '../scsi/lun.js';
import type { OtherUnit } from '../session/paths/path-places.js';
import type { DaemonSession } from './daemon-session.js';
import type { Neighbours } from './neighbours.js';
import { logoutPath, refuseOnlyPath } from './one-path.js';
import { isAlike, isSame, noPath, type UnitPlace, unproven } from './unit-words.js';

/** A disk of a session, by the facts that were written down last. */
type Known = { readonly session: DaemonSession; readonly disk: FoundDisk };

/** Options that two sessions have to have alike for a path of one to serve a disk of the other. */
const ALIKE = ['chap', 'initiatorName', 'readOnly', 'shared'] as const;

/**
 * Logical units that sessions to targets of different names have in common: the session that has
 * found a unit first makes a disk of it, and the targets of the others are paths of that disk.
 */
export class SharedUnits {
  readonly #sessions: () => Promise<readonly DaemonSession[]>;
  readonly #neighbours: Neighbours | undefined;
  /** Disks that a session has found and is about to write down. */
  readonly #found = new WeakMap<DaemonSession, readonly FoundDisk[]>();

  /** `sessions` resolves to all that there are, those included whose record has just been read. */
  constructor(
    sessions: () => Promise<readonly DaemonSession[]>,
    neighbours: Neighbours | undefined,
  ) {
    this.#sessions = sessions;
    this.#neighbours = neighbours;
  }

  /**
   * Those of the disks of a session that no other session has. The target of the session becomes a
   * path of the others' disks; rejects if it cannot.
   */
  async ownDisks(session: DaemonSession, all: readonly FoundDisk[]): Promise<FoundDisk[]> {
    const found =
      this.#neighbours === undefined ? all : await this.#neighbours.disksHere(session, all);
    const sessions = await this.#sessions();
    // No `await` until the own ones are kept: two sessions may ask at the same time.
    const others = sessions.filter((other) => other !== session && !other.isEnding);
    const own: FoundDisk[] = [];
    const joins = new Map<DaemonSession, OtherUnit[]>();
    for (const disk of found) {
      const owner = this.#ownerOf({ session, disk }, { found, others });
      if (owner === null) own.push(disk);
      else
        joins.set(owner.session, [
          ...(joins.get(owner.session) ?? []),
          unitOf(owner, disk, session),
        ]);
    }
    this.#found.set(session, [...(this.#found.get(session) ?? []), ...own]);
    for (const [owner, units] of joins) await join(session, owner, units);
    return own;
  }

  /** Logs a session out, and the paths over its target of the disks of others. */
  async logout(session: DaemonSession, options: { readonly force: boolean }): Promise<void> {
    const { targetName } = session.plan.request;
    const others = (await this.#sessions()).filter((other) => other !== session);
    const paths = others.flatMap((other) =>
      (other.stack.paths?.members ?? [])
        .filter((member) => member.other?.targetName === targetName)
        .map((member) => ({ session: other, member })),
    );
    for (const path of paths) refuseOnlyPath(path, options);
    await session.close(options);
    for (const path of paths) await logoutPath(path, { force: true });
  }

  /** The disk of another session that this is; null: it is none, or nothing proves it. */
  #ownerOf(
    { session, disk }: Known,
    {
      found,
      others,
    }: { readonly found: readonly FoundDisk[]; readonly others: readonly DaemonSession[] },
  ): Known | null {
    // It was a disk of this session before: its users still have it.
    if (session.record.disks.some(({ lun }) => lun === disk.lun)) return null;
    const recorded = others.flatMap((other) => recordedUnit(other, session, disk));
    const known = others.flatMap((other) => this.#disksOf(other));
    const named = [...recorded, ...known.filter((it) => isSame(it.disk, disk))];
    const proven = named.filter((it) => otherTargetMismatch(it.disk.facts, disk.facts) === null);
    const same = proven.length > 0 ? proven : named;
    const [owner] = same;
    if (owner === undefined) {
      const like = known.find((it) => isAlike(it.disk, disk));
      if (like !== undefined)
        session.stack.warn(unproven(disk, session.plan.request.targetName, placeOf(like)));
      return null;
    }
    const why = whyNotJoined(session, disk, { found, same });
    if (why === null) return owner;
    const { targetName } = session.plan.request;
    session.stack.warn(noPath(disk, targetName, { owner: placeOf(owner), why }));
    return null;
  }

  #disksOf(session: DaemonSession): Known[] {
    const known = new Map<number, Known>();
    for (const disk of [...session.record.disks, ...(this.#found.get(session) ?? [])]) {
      known.set(disk.lun, { session, disk });
    }
    return [...known.values()];
  }
}

/** The record of the other session says that the LUN is a path of its disk. */
function recordedUnit(other: DaemonSession, session: DaemonSession, disk: FoundDisk): Known[] {
  const { targetName } = session.plan.request;
  const units = (other.record.paths ?? []).flatMap((path) =>
    path.other?.targetName === targetName ? path.other.units : [],
  );
  const unit = units.find(({ otherLun }) => otherLun === disk.lun);
  if (unit === undefined) return [];
  const known = other.record.disks.find(({ lun }) => lun === unit.lun);
  // Before the other session has found its disk again, nothing tells that it has been exchanged.
  if (known !== undefined && otherTargetMismatch(known.facts, disk.facts) !== null) return [];
  return [{ session: other, disk: { ...disk, lun: unit.lun } }];
}

/** Null: the disk becomes a path of the only one of the same name. */
function whyNotJoined(
  session: DaemonSession,
  disk: FoundDisk,
  { found, same }: { readonly found: readonly FoundDisk[]; readonly same: readonly Known[] },
): string | null {
  const units = new Set(same.map((known) => `${known.session.sessionId} ${known.disk.lun}`));
  const [owner] = same;
  if (owner === undefined) throw new InvariantError('there is no disk to be a path of');
  const twin = found.find((other) => other !== disk && isSame(other, disk));
  if (twin !== undefined) {
    return `LUN ${twin.lun} has it too, so it names no one unit. Give each its own at the target`;
  }
  const different = otherTargetMismatch(owner.disk.facts, disk.facts);
  if (different !== null) return different;
  if (units.size > 1) return 'more than one disk here has it. Give each its own at the targets';
  const [its, theirs] = [session.options, owner.session.options];
  if (its.multipath !== 'auto' || theirs.multipath !== 'auto') {
    return 'both sessions need multipath auto';
  }
  const option = ALIKE.find((each) => !isDeepStrictEqual(its[each], theirs[each]));
  if (option === undefined) return null;
  return `${option} has to be the same in both sessions`;
}

function unitOf({ disk: { lun } }: Known, disk: FoundDisk, { stack }: DaemonSession): OtherUnit {
  const otherField = lunFieldToHex(stack.lunFields.fieldOf(disk.lun));
  return { lun, otherLun: disk.lun, otherField };
}

async function join(
  session: DaemonSession,
  owner: DaemonSession,
  units: readonly OtherUnit[],
): Promise<void> {
  const { stack } = session;
  const { targetName } = session.plan.request;
  const { portals } = stack.handle.session;
  const isRecorded = units.every(({ lun, otherLun }) =>
    (owner.record.paths ?? []).some(
      ({ other }) =>
        other?.targetName === targetName &&
        other.units.some((unit) => unit.lun === lun && unit.otherLun === otherLun),
    ),
  );
  // The owner has the path as soon as it is open, whenever that is.
  if (!isRecorded || owner.hasOpened) {
    await owner.opened();
    await owner.stack.pathSources.join(portals.current, { targetName, units });
  }
  for (const { lun, otherLun } of units) {
    stack.warn(
      `LUN ${otherLun} of ${targetName} is a path of LUN ${lun} of ` +
        `${owner.plan.request.targetName}, which session ${owner.sessionId} has`,
    );
  }
}

function placeOf({ disk, session }: Known): UnitPlace {
  return { disk, targetName: session.plan.request.targetName, sessionId: session.sessionId };
}
