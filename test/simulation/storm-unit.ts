import { TargetDisk } from '../../src/target/disk.js';
import { CELL_BYTES, valueIn } from './cell-content.js';
import { COMMAND, type ModelClient, type ModelReply } from './model-client.js';
import { ModelDisk } from './model-disk.js';
import type { Job } from './storm-types.js';
import { TARGET_NAME, type World } from './world.js';

const EIO = 5;
const POWER_ON = { asc: 0x29, ascq: 0x00 };
/** In what a LUN says of why it is away: 05h/25h. */
const NO_SUCH_UNIT = 'no such logical unit';

/** What a unit has to know of the storm to judge its replies. */
export interface StormRules {
  readonly world: World;
  /** The shortest removal latency that was in force. */
  readonly latencyMs: number;
  readonly isClosing: boolean;
  /** What is under way ends now, with or without a client. */
  readonly isForced: boolean;
}

/** One LUN in a storm: its disk, what it may hold, its clients and how their requests end. */
export class StormUnit {
  readonly lun: number;
  readonly disk: TargetDisk;
  readonly decoy: TargetDisk;
  readonly model: ModelDisk;
  /** Cells of requests that have not ended. */
  readonly busy = new Set<number>();
  readonly jobs = new Set<Job>();
  clients: ModelClient[] = [];
  /** Nothing is done to it: whatever happens to its neighbours, it has to work. */
  readonly isSpared: boolean;
  /** The LUN was away or another disk, or may have been: errors and a removal are right then. */
  mayFail = false;
  /** It has been busy for long; twice would be longer than the deadlines allow. */
  wasBusy = false;
  /** It answers nothing. */
  isHanging = false;
  errors = 0;
  /** Instant since which the unit has not served, or null. */
  #awaySinceMs: number | null = null;
  /** While the disk reports that it cannot serve: since when a request has met that. */
  #reportedSinceMs: number | undefined;
  /** A login has not yet led to the release of the unit. */
  #isLooking = false;
  /** Reports of a power loss that have not led to anything in the process yet. */
  #unheard: 'nothing' | 'attention' | 'absence' = 'nothing';
  readonly #rules: StormRules;

  constructor(options: {
    readonly lun: number;
    readonly disk: TargetDisk;
    readonly cells: number;
    readonly hasVolatileCache: boolean;
    readonly retains: boolean;
    readonly isSpared: boolean;
    readonly rules: StormRules;
  }) {
    this.lun = options.lun;
    this.disk = options.disk;
    this.isSpared = options.isSpared;
    this.#rules = options.rules;
    const { cells, hasVolatileCache, retains, lun } = options;
    this.decoy = TargetDisk.ram({ sizeBytes: cells * CELL_BYTES, serial: `OTHER${lun}` });
    this.model = new ModelDisk({ cells, hasVolatileCache, retains });
  }

  /** Watches the unit of the process that serves it from now on. */
  watch(): void {
    const unit = this.#rules.world.unitOf(this.lun);
    if (unit === undefined) return;
    const { queue, disk } = unit;
    const attended = disk.unitAttention.bind(disk);
    const { cache } = disk;
    const mayBeLost = cache.mayBeLost.bind(cache);
    // Reported, or assumed because a report may have been missed.
    cache.mayBeLost = () => {
      this.#lossHeard();
      mayBeLost();
    };
    disk.unitAttention = (attention, words, sinceMs) => {
      this.#reportedSinceMs = sinceMs;
      attended(attention, words, sinceMs);
      this.#reportedSinceMs = undefined;
    };
    const [hold, release] = [queue.hold.bind(queue), queue.release.bind(queue)];
    if (queue.mode !== 'open') this.wentAway();
    queue.hold = () => {
      this.wentAway();
      hold();
    };
    queue.release = () => {
      this.#awaySinceMs = null;
      this.#isLooking = false;
      release();
    };
  }

  /** Nothing is sent to it from now on, for whatever reason. */
  wentAway(): void {
    this.#awaySinceMs ??= this.#reportedSinceMs ?? this.#rules.world.nowMs;
  }

  sessionLost(): void {
    this.wentAway();
    this.#answersLost();
    // The answer that reports a power loss may have been on its way: to a probe after the login, or
    // to one of a removed disk.
    const isRemoved = !this.#rules.world.exporter.has(this.lun);
    if (this.#isLooking || isRemoved) this.model.perhapsRestarted();
    this.#isLooking = false;
  }

  loggedInAgain(): void {
    this.#isLooking = true;
  }

  get isServing(): boolean {
    const { world } = this.#rules;
    return world.exporter.has(this.lun) && world.unitOf(this.lun)?.queue.mode === 'open';
  }

  openClients(): ModelClient[] {
    this.clients = this.clients.filter((client) => client.isOpen);
    return this.clients;
  }

  /** The target went down, with the power or without. */
  restarted(powerLoss: boolean, isReported = true): void {
    this.model.restarted({
      powerLoss,
      isReported,
      isBusy: this.jobs.size > 0,
      valueOf: (cell) => this.#valueAtTarget(cell),
    });
  }

  removed(): void {
    this.model.removed({
      isBusy: this.jobs.size > 0,
      valueOf: (cell) => this.#valueAtTarget(cell),
    });
  }

  perhapsRestarted(): void {
    this.model.perhapsRestarted();
  }

  /**
   * The disk alone lost its power, which the next command to it reports. A removed disk reports it
   * to no process, so only one that knows already that it is gone can know.
   */
  lostPower(): void {
    const { node } = this.#rules.world;
    const isThere = node.targets.get(TARGET_NAME)?.luns.has(this.lun) === true;
    const isKnownToBeGone = !isThere && this.#isKnownToBeGone;
    this.restarted(true, isThere || isKnownToBeGone);
    if (isThere) this.#unheard = 'attention';
    else if (isKnownToBeGone) this.#unheard = 'absence';
    node.raiseAttention(TARGET_NAME, this.lun, POWER_ON);
  }

  get #isKnownToBeGone(): boolean {
    const lun = this.#rules.world.stack.luns.find(({ unit }) => unit.lun === this.lun);
    return lun?.state === 'away' && lun.lastError?.includes(NO_SUCH_UNIT) === true;
  }

  /** The process is killed, and another takes over what it served. */
  takenOver(): void {
    this.model.takenOver();
    if (this.#unheard === 'absence') this.model.attentionLost();
    this.#answersLost();
  }

  begin(job: Job): void {
    this.jobs.add(job);
    for (const cell of job.cells) this.busy.add(cell);
  }

  /** The client is gone: what it left unanswered may have been done, or be done yet. */
  clientGone(client: ModelClient): void {
    for (const job of [...this.jobs]) {
      if (job.client !== client) continue;
      this.#end(job);
      if (job.command === COMMAND.flush) this.model.flushLeftBehind();
      else if (job.command !== COMMAND.read) {
        for (const cell of job.cells) this.model.leftBehind(cell, job.value);
      }
    }
    this.model.clientGone(client);
    this.openClients();
  }

  answered(job: Job, reply: ModelReply): void {
    this.#end(job);
    if (reply.error === 0) {
      this.#judgeSuccess(job, reply);
      return;
    }
    this.errors += 1;
    for (const cell of job.cells) {
      if (job.command === COMMAND.trim) this.model.perhapsTrimmed(cell);
      else if (job.command !== COMMAND.read) this.model.perhapsWritten(cell, job.value);
    }
    this.#judgeError(job, reply.error);
  }

  /** Nothing was written to the other disk that was behind the LUN for a time. */
  checkDecoy(): void {
    const { mapped, length } = this.decoy.extent(0, this.decoy.sizeBytes);
    if (mapped || length < this.decoy.sizeBytes) {
      this.#rules.world.fault(`a write to LUN ${this.lun} landed on another disk`);
    }
  }

  #lossHeard(): void {
    this.#unheard = 'nothing';
    this.model.lossHeard({ isLast: !this.#isReportPending });
  }

  get #isReportPending(): boolean {
    return [...this.#rules.world.node.sessions].some((session) =>
      session.pendingAttentions.get(this.lun)?.some(({ asc }) => asc === POWER_ON.asc),
    );
  }

  /** What was on its way to the process is gone: a failure of power is reported once only. */
  #answersLost(): void {
    if (this.#unheard !== 'attention') return;
    this.#unheard = 'nothing';
    // The next process has the report, and does not know that nothing was in the cache.
    if (this.#isReportPending) this.model.perhapsRestarted();
    else this.model.attentionLost();
  }

  #end(job: Job): void {
    job.isOver = true;
    this.jobs.delete(job);
    for (const cell of job.cells) this.busy.delete(cell);
  }

  #judgeSuccess(job: Job, reply: ModelReply): void {
    const { model } = this;
    let wrong: string | null = null;
    if (job.command === COMMAND.flush) wrong = model.flushed(job.mark, job.losses, job.client);
    for (const [index, cell] of job.cells.entries()) {
      if (job.command === COMMAND.read) {
        const value = valueIn(reply.data, index * CELL_BYTES, cell);
        wrong = typeof value === 'string' ? value : model.read(cell, value);
      } else if (job.command === COMMAND.trim) {
        model.trimmed(cell);
      } else if (job.command !== COMMAND.flush) {
        model.written(cell, job.value, { stable: job.fua });
      }
      if (wrong !== null) break;
    }
    if (wrong !== null) this.#rules.world.fault(`LUN ${this.lun}: ${wrong}`);
  }

  #judgeError(job: Job, error: number): void {
    const { world, latencyMs, isClosing, isForced } = this.#rules;
    const what = `LUN ${this.lun}: command ${job.command}`;
    if (error !== EIO) {
      world.fault(`${what} failed with errno ${error}`);
      return;
    }
    if (isForced || (!this.isSpared && (isClosing || this.mayFail))) {
      if (job.command === COMMAND.flush) this.model.flushFailed(job.mark, job.losses, job.client);
      return;
    }
    const awayMs = this.#awaySinceMs === null ? -1 : world.nowMs - this.#awaySinceMs;
    if (!this.isSpared && awayMs >= latencyMs - 0.001) return;
    const isFlush = job.command === COMMAND.flush;
    const why = isFlush ? this.model.flushFailed(job.mark, job.losses, job.client) : 'not a flush';
    if (why !== null) world.fault(`${what} failed with EIO after ${awayMs} ms away (${why})`);
  }

  /** What a cell holds at the target; null where a request is under way. */
  #valueAtTarget(cell: number): number | null {
    if (this.busy.has(cell)) return null;
    const value = valueIn(this.disk.read(cell * CELL_BYTES, CELL_BYTES), 0, cell);
    return typeof value === 'string' ? null : value;
  }
}
