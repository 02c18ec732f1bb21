import type { LunField, ScsiCommand, ScsiCommandOwner, ScsiPort } from '../../scsi/command.js';
import type { Attention } from '../../scsi/sense-table.js';
import { ScsiStatus } from '../../scsi/status.js';
import { verdictOfReply } from '../../scsi/verdict.js';
import { ACCESS_OF, type Path } from './path.js';
import type { PathChoice } from './path-choice.js';

/**
 * Writes that the target may still do though their session is gone: those of one path at one
 * instant (null: those of a process before). Each needs a proof of its own: an answer about what
 * was at the target earlier says nothing of what was sent later.
 */
export type Fence = {
  readonly path: Path | null;
  /** The nexus of their session: a login of the same nexus ends them. Null: it is not known. */
  readonly nexus: string | null;
};

export type PathsPortHooks = {
  /** Number of the turn (see `SendBatch`), at whose end all its commands are sent; -1: no turn. */
  readonly turn: () => number;
  /**
   * The unit has told over this path that the path cannot be used now, or that something about it
   * has changed. What becomes of the path is decided before this returns. `ours`: it is what we
   * have had done, and the command has only to be sent again.
   */
  readonly pathAttention: (path: Path, attention: Attention) => 'news' | 'ours';
  /** Requests of the unit are held: a command that comes back is its sender's business. */
  readonly isHeld: () => boolean;
  /** No path can be used now, and one will be soon: commands wait here for it. */
  readonly isAwaited: () => boolean;
  /** A path is lost with writes under way: the target may still do their tasks, at any time. */
  readonly fenceNeeded: (fence: Fence) => void;
  /** Commands go over another path now, because the one before cannot be used or is worse. */
  readonly switched: (from: Path | null, to: Path) => void;
};

/**
 * The paths to one logical unit as one port. A command that the path has lost, or that the unit
 * refuses over this path, goes over another one.
 *
 * **The fence.** A write that was under way on a path that is gone may still be done by the target,
 * later than its own repetition, and later than a newer write. So writes, those that are repeated
 * and all that come, wait until the old tasks are proven over (`provenOver`); reads do not wait.
 */
export class PathsPort implements ScsiPort, ScsiCommandOwner {
  #paths: readonly Path[] = [];
  /** All paths that there ever were, by their `id`. */
  readonly #byId: Path[] = [];
  readonly #choice: PathChoice;
  readonly #hooks: PathsPortHooks;
  readonly #fences = new Set<Fence>();
  /** Commands that wait for a path, and writes behind the fence, in the order of arrival. */
  #waiting: ScsiCommand[] = [];
  #isRecalling = false;
  /** The path that was used last. */
  #used: Path | null = null;

  constructor(choice: PathChoice, hooks: PathsPortHooks) {
    this.#choice = choice;
    this.#hooks = hooks;
  }

  get paths(): readonly Path[] {
    return this.#paths;
  }

  get isUsable(): boolean {
    return this.#paths.some(({ isUsable }) => isUsable);
  }

  /** Writes wait for the proof that old ones have ended. */
  get isFenced(): boolean {
    return this.#fences.size > 0;
  }

  get fences(): readonly Fence[] {
    return [...this.#fences];
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  add(path: Path): void {
    path.id = this.#byId.push(path) - 1;
    this.#paths = [...this.#paths, path];
  }

  /** The path is none of the unit any more; what is under way over it still ends here. */
  remove(path: Path): void {
    this.#paths = this.#paths.filter((other) => other !== path);
  }

  /** A command that was sent over the path before the unit had this port. */
  adopt(command: ScsiCommand, path: Path): void {
    command.owner = this;
    command.via = path.id;
    command.era = path.era;
    path.began(command);
  }

  submit(command: ScsiCommand): void {
    // A flush, too: it says something of writes that a loss not yet judged may have taken.
    if (command.direction !== 'read' && this.#fences.size > 0) {
      this.#wait(command);
      return;
    }
    this.#send(command);
  }

  recall(_lun: LunField): void {
    this.#isRecalling = true;
    for (const path of this.#paths) path.port.recall(path.lun);
    this.#isRecalling = false;
    this.giveUp();
  }

  /** The session of the path is gone; to be reported before its commands come back. */
  pathDown(path: Path): void {
    if (path.writesInFlight > 0) this.fence(path);
  }

  /** The path is not used for now: commands that wait in its session go over another one. */
  takenOut(path: Path): void {
    path.port.recall(path.lun);
  }

  /** The unit may have lost its cache, and has said so over this path (null: over none). */
  cacheMayBeLost(told: Path | null): void {
    for (const path of this.#paths) if (path !== told) path.era += 1;
  }

  /** Writes may be under way over the path, and their end is not reported. */
  fence(path: Path | null): void {
    const fence = { path, nexus: path?.nexus ?? null };
    this.#fences.add(fence);
    this.#hooks.fenceNeeded(fence);
  }

  isFencing(fence: Fence): boolean {
    return this.#fences.has(fence);
  }

  /** The writes that the fence is about have ended, whatever they did. */
  provenOver(fence: Fence): void {
    if (this.#fences.delete(fence) && this.#fences.size === 0) this.release();
  }

  /** Waiting commands are sent, except for what still has to wait. */
  release(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const command of waiting) this.submit(command);
  }

  /**
   * Waiting commands are not sent by us: the owner that holds requests, or fails them, has them.
   */
  giveUp(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const command of waiting) giveBack(command);
  }

  scsiCommandDone(command: ScsiCommand): void {
    const path = this.#byId[command.via];
    command.owner = command.sender;
    if (path === undefined) {
      command.sender.scsiCommandDone(command);
      return;
    }
    path.ended(command);
    const isWrite = command.direction === 'write';
    const isGood = command.outcome === 'answered' && command.status === ScsiStatus.good;
    if (isGood && isWrite && command.era !== path.era) command.outcome = 'lost';
    if (isGood || !this.#goesElsewhere(command, path)) command.sender.scsiCommandDone(command);
  }

  /** True if the command is sent over another path, or waits for that. */
  #goesElsewhere(command: ScsiCommand, path: Path): boolean {
    if (this.#isRecalling) return false;
    if (command.outcome === 'lost') {
      if (path.isUsable) return false;
    } else {
      if (command.outcome !== 'answered') return false;
      const { attention, action } = verdictOfReply({
        status: command.status,
        sense: command.sense.subarray(0, command.senseLength),
      });
      if (attention === null) return false;
      if (this.#hooks.pathAttention(path, attention) === 'ours') command.outcome = 'lost';
      // An attention that the unit raises is for the sender of the command, even over one path.
      else if (action !== 'away' || !ACCESS_OF.has(attention) || path.isUsable) return false;
    }
    if (this.#hooks.isHeld() || !(this.isUsable || this.#hooks.isAwaited())) return false;
    command.emptyReply();
    this.submit(command);
    return true;
  }

  #wait(command: ScsiCommand): void {
    command.outcome = 'pending';
    this.#waiting.push(command);
  }

  #send(command: ScsiCommand): void {
    const path = this.#choice.next(this.#paths, this.#hooks.turn());
    if (path === null) {
      if (this.#hooks.isAwaited()) this.#wait(command);
      else giveBack(command);
      return;
    }
    if (path !== this.#used) this.#isUsed(path);
    command.owner = this;
    command.via = path.id;
    command.era = path.era;
    command.lun = path.lun;
    path.began(command);
    path.port.submit(command);
  }

  /** Told of only if the path before cannot be used, or is worse: not if they take turns. */
  #isUsed(path: Path): void {
    const before = this.#used;
    this.#used = path;
    if (before === null || before.rank > path.rank) this.#hooks.switched(before, path);
  }
}

/** Gives a command that was not sent back to its sender, as lost. */
function giveBack(command: ScsiCommand): void {
  command.owner = command.sender;
  command.outcome = 'lost';
  command.sender.scsiCommandDone(command);
}
