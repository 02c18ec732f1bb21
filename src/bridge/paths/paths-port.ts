import type { LunField, ScsiCommand, ScsiCommandOwner, ScsiPort } from '../../scsi/command.js';
import type { Attention } from '../../scsi/sense-table.js';
import { ScsiStatus } from '../../scsi/status.js';
import { verdictOfReply } from '../../scsi/verdict.js';
import type { Path } from './path.js';
import type { PathChoice } from './path-choice.js';

export type PathsPortHooks = {
  /**
   * The unit has told over this path that the path cannot be used now, or that something about it
   * has changed. What becomes of `path.access` and `path.isUp` is decided before this returns.
   */
  readonly pathAttention: (path: Path, attention: Attention) => void;
  /** Requests of the unit are held: a command that comes back is its sender's business. */
  readonly isHeld: () => boolean;
  /** The path is gone with writes under way: nobody knows when their old tasks end. */
  readonly fenceNeeded: (path: Path) => void;
  /** Commands go over another path now, because the one before cannot be used or is worse. */
  readonly switched: (from: Path | null, to: Path) => void;
};

/** What a unit reports of one of its ports: over another one the same command may be done. */
const OF_THE_PATH: ReadonlySet<Attention> = new Set<Attention>([
  'portStandby',
  'becomingReady',
  'lunGone',
  'notReady',
]);

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
  /** Paths whose old writes may still be done. */
  readonly #fencing = new Set<Path>();
  /** Writes behind the fence, in the order in which they came. */
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
    return this.#fencing.size > 0;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  add(path: Path): void {
    path.id = this.#byId.push(path) - 1;
    this.#paths = [...this.#paths, path];
  }

  /** It is not used any more; its old tasks count until they are proven over. */
  remove(path: Path): void {
    path.isUp = false;
    this.#paths = this.#paths.filter((one) => one !== path);
  }

  submit(command: ScsiCommand): void {
    if (command.direction === 'write' && this.#fencing.size > 0) {
      command.outcome = 'pending';
      this.#waiting.push(command);
      return;
    }
    this.#send(command);
  }

  recall(_lun: LunField): void {
    this.#isRecalling = true;
    for (const path of this.#paths) path.port.recall(path.lun);
    this.#isRecalling = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const command of waiting) giveBack(command);
  }

  /** The path is gone; to be told before its commands come back. */
  pathDown(path: Path): void {
    if (path.writesInFlight > 0) this.fence(path);
  }

  /** Writes may be under way over the path, and nobody hears of their end. */
  fence(path: Path): void {
    if (this.#fencing.has(path)) return;
    this.#fencing.add(path);
    this.#hooks.fenceNeeded(path);
  }

  isFencing(path: Path): boolean {
    return this.#fencing.has(path);
  }

  /** The tasks that were under way over the path when it went have ended, whatever they did. */
  provenOver(path: Path): void {
    if (!this.#fencing.delete(path) || this.#fencing.size > 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const command of waiting) this.#send(command);
  }

  /** No path can be used, so that what waits is not sent by us: whoever holds requests has it. */
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
    path.inFlight -= 1;
    const isWrite = command.direction === 'write';
    if (isWrite) path.writesInFlight -= 1;
    const isGood = command.outcome === 'answered' && command.status === ScsiStatus.good;
    if (isGood || !this.#goesElsewhere(command, path)) command.sender.scsiCommandDone(command);
  }

  /** True if the command is sent over another path, or waits for that. */
  #goesElsewhere(command: ScsiCommand, path: Path): boolean {
    if (this.#isRecalling) return false;
    if (command.outcome === 'lost') {
      if (path.isUp) return false;
    } else {
      if (command.outcome !== 'answered') return false;
      const { attention, action } = verdictOfReply({
        status: command.status,
        sense: command.sense.subarray(0, command.senseLength),
      });
      if (attention === null) return false;
      this.#hooks.pathAttention(path, attention);
      // An attention that the unit raises is for whoever sends the command, also over one path.
      if (action !== 'away' || !OF_THE_PATH.has(attention) || path.isUsable) return false;
    }
    if (!this.isUsable || this.#hooks.isHeld()) return false;
    again(command);
    this.submit(command);
    return true;
  }

  #send(command: ScsiCommand): void {
    const path = this.#choice.next(this.#paths);
    if (path === null) {
      giveBack(command);
      return;
    }
    if (path !== this.#used) this.#isUsed(path);
    command.owner = this;
    command.via = path.id;
    command.lun = path.lun;
    path.inFlight += 1;
    if (command.direction === 'write') path.writesInFlight += 1;
    path.port.submit(command);
  }

  /** Told of only if the path before cannot be used, or is worse: not if they take turns. */
  #isUsed(path: Path): void {
    const before = this.#used;
    this.#used = path;
    if (before === null || before.rank > path.rank) this.#hooks.switched(before, path);
  }
}

/** Nobody has sent it. */
function giveBack(command: ScsiCommand): void {
  command.owner = command.sender;
  command.outcome = 'lost';
  command.sender.scsiCommandDone(command);
}

/** Empties the reply: the same command is sent once more. */
function again(command: ScsiCommand): void {
  command.dataIn.clear();
  command.outcome = 'pending';
  command.status = 0;
  command.response = 0;
  command.senseLength = 0;
  command.residual = 0;
  command.sentBytes = 0;
}
