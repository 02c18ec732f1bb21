import type { StackEvent } from '../../src/daemon/contract.js';
import { TargetDisk } from '../../src/target/disk.js';
import { CELL_BYTES, contentOf, valueIn, ZERO } from './cell-content.js';
import { conditionsOf } from './conditions.js';
import { COMMAND, FLAG, type ModelClient, type ModelReply } from './model-client.js';
import { ModelDisk } from './model-disk.js';
import { Seeded } from './seeded.js';
import type { Job, StormReport } from './storm-types.js';
import { type StormScene, Strikes } from './strikes.js';
import { World } from './world.js';

const CELLS = 48;
const CELLS_OF_REQUEST_MAX = 40;
const DISK_BYTES = CELLS * CELL_BYTES;
const EIO = 5;
/** Requests the clients have under way together. */
const SLOTS = 6;

/**
 * Clients at work in bad weather: requests of every kind against a model disk while the seed's
 * faults happen, then good weather, in which everything has to be answered and right.
 */
export class Storm implements StormScene {
  readonly world: World;
  readonly random: Seeded;
  readonly #seed: number;
  readonly #strikes = new Strikes(this);
  readonly model: ModelDisk;
  readonly decoy: TargetDisk;
  readonly #busy = new Set<number>();
  readonly #jobs = new Set<Job>();
  readonly #clients: ModelClient[] = [];
  readonly #story: string[] = [];
  /** The shortest removal latency that was in force. */
  #latencyMs: number;
  #value = 0;
  #stormEndsAtMs = 0;
  isCalm = false;
  #isClosing = false;
  /** Another disk was, or may have been, behind the LUN: errors and a removal are right then. */
  #hadOtherDisk = false;
  /** Instant since which the unit has been away, or null. */
  #awaySinceMs: number | null = null;
  /** Instant since which requests are held for whatever reason, a look among them, or null. */
  #heldSinceMs: number | null = null;
  /** A login has not yet led to the release of the unit. */
  #isLooking = false;
  #requests = 0;
  #errors = 0;

  constructor(seed: number) {
    this.#seed = seed;
    const random = new Seeded(seed);
    this.random = random;
    const conditions = conditionsOf(random, DISK_BYTES);
    this.world = new World({ random, ...conditions });
    const { network, options } = this.world;
    network.latencyMs = random.spread(0.05, 20);
    network.jitterMs = random.chance(0.5) ? 0 : random.spread(0.1, 50);
    this.#latencyMs = options.removalLatencySeconds * 1000;
    const hasVolatileCache = conditions.disk?.writeCache === 'volatile';
    this.decoy = TargetDisk.ram({ sizeBytes: DISK_BYTES, serial: 'OTHER' });
    this.model = new ModelDisk({ cells: CELLS, hasVolatileCache });
    this.world.onEvent = (event) => this.#heard(event);
  }

  async run(): Promise<StormReport> {
    const { world } = this;
    await world.start();
    this.#watchHolds();
    this.#stormEndsAtMs = world.nowMs + this.random.between(5000, 40_000);
    for (let slot = 0; slot < SLOTS; slot += 1) this.#later(() => this.#work());
    const faults = this.random.whole(1, 5);
    for (let index = 0; index < faults; index += 1) {
      const atMs = this.random.between(world.nowMs, this.#stormEndsAtMs);
      world.clock.at(atMs, () => this.#strikes.strike());
    }
    await world.pass(this.#stormEndsAtMs - world.nowMs);
    if (this.random.chance(0.15)) await this.#logoutInTheMiddle();
    else await this.#calm();
    const { outages } = world.stack.counters;
    return {
      seed: this.#seed,
      faults: world.faults,
      requests: this.#requests,
      errors: this.#errors,
      outages,
      virtualSeconds: world.nowMs / 1000,
      story: this.#story,
    };
  }

  clients(): readonly ModelClient[] {
    return this.#clients;
  }

  isBusy(): boolean {
    return this.#jobs.size > 0;
  }

  valueAtTarget(cell: number): number | null {
    if (this.#busy.has(cell)) return null;
    const value = valueIn(this.world.disk.read(cell * CELL_BYTES, CELL_BYTES), 0, cell);
    return typeof value === 'string' ? null : value;
  }

  otherDiskCame(): void {
    this.#hadOtherDisk = true;
  }

  latencyChanged(latencyMs: number): void {
    this.#latencyMs = Math.min(this.#latencyMs, latencyMs);
  }

  tell(words: string): void {
    this.#story.push(`${(this.world.nowMs / 1000).toFixed(3)} s: ${words}`);
  }

  #watchHolds(): void {
    const { queue } = this.world.unit;
    const [hold, release] = [queue.hold.bind(queue), queue.release.bind(queue)];
    queue.hold = () => {
      this.#heldSinceMs ??= this.world.nowMs;
      hold();
    };
    queue.release = () => {
      this.#heldSinceMs = null;
      release();
    };
  }

  #heard(event: StackEvent): void {
    if (event.event !== 'sessionState') {
      this.tell(`${event.event} ${'reason' in event ? event.reason : ''}`);
      if (event.event === 'deviceReleased' || event.event === 'deviceAttached') {
        this.#awaySinceMs = null;
        this.#isLooking = false;
      }
      return;
    }
    const { from, to, reason } = event;
    this.tell(`${from} → ${to}: ${reason}`);
    if (to === 'reconnecting') {
      this.#awaySinceMs ??= this.world.nowMs;
      // The answer that tells of a power loss may have been on its way.
      if (this.#isLooking) this.model.perhapsRestarted();
    }
    this.#isLooking = to === 'loggedIn' && from !== 'loggingIn';
  }

  #later(action: () => void): void {
    const { clock } = this.world;
    clock.at(clock.nowMs() + this.random.spread(1, 2000), action);
  }

  /** Good weather: everything is answered, the unit is there, and what it holds is right. */
  async #calm(): Promise<void> {
    const { world } = this;
    this.isCalm = true;
    this.#heal();
    const isQuiet = () => this.#jobs.size === 0 && this.#isServing();
    if (!(await world.when(isQuiet, 400_000))) {
      const left = [...this.#jobs].map((job) => `${job.command} on ${job.cells.join(',')}`);
      world.fault(`never answered: ${left.join('; ')}; serving: ${this.#isServing()}`);
      this.#abandon();
      await world.end({ force: true });
      return;
    }
    await this.#readEverything();
    await this.#flushTwice();
    this.#checkDecoy();
    this.#isClosing = true;
    await world.end();
  }

  async #logoutInTheMiddle(): Promise<void> {
    const { world } = this;
    this.#isClosing = true;
    this.tell('logout in the middle');
    // A target that answers no logout is given three seconds.
    const beganAtMs = world.nowMs;
    await world.until(world.stack.close({ force: this.random.chance(0.5) }), 30_000);
    if (world.nowMs - beganAtMs > 3100) world.fault('the logout took more than its time');
    this.isCalm = true;
    this.#heal();
    this.#abandon();
    await world.end();
    this.#checkDecoy();
  }

  #isServing(): boolean {
    return this.world.exporter.isExported && this.world.unit.queue.mode === 'open';
  }

  #abandon(): void {
    for (const client of this.#clients) client.close();
    this.#jobs.clear();
  }

  #heal(): void {
    const { world } = this;
    const target = [...world.node.targets.values()][0]!;
    target.luns.set(0, world.disk);
    const { faults } = world.node;
    faults.loginStatus = undefined;
    this.world.commands.clear();
    faults.onCommand = this.world.commands.ask;
    faults.ignoreNops = false;
    faults.onTaskManagement = undefined;
    faults.logoutResponse = undefined;
    for (const link of world.network.links) {
      link.cutAfterSent = Number.POSITIVE_INFINITY;
      link.cutAfterReceived = Number.POSITIVE_INFINITY;
    }
    world.network.become('up');
  }

  #client(): ModelClient | null {
    const open = this.#clients.filter((client) => client.isOpen);
    for (const client of this.#clients) if (!client.isOpen) this.model.clientGone(client);
    this.#clients.length = 0;
    this.#clients.push(...open);
    if (open.length < 2 && this.world.exporter.isExported && !this.#isClosing) {
      const client = this.world.newClient();
      this.#clients.push(client);
      this.model.clientCame(client);
    }
    return this.#clients.length === 0 ? null : this.random.pick(this.#clients);
  }

  /** One slot's next request, and after its reply the one after it. */
  #work(): void {
    if (this.isCalm || this.#isClosing) return;
    const client = this.#client();
    const job = client === null ? null : this.#newJob(client);
    if (client === null || job === null) {
      this.#later(() => this.#work());
      return;
    }
    this.#send(job, () => this.#later(() => this.#work()));
  }

  #newJob(client: ModelClient): Job | null {
    const random = this.random;
    const command = random.pick([
      COMMAND.read,
      COMMAND.read,
      COMMAND.write,
      COMMAND.write,
      COMMAND.write,
      COMMAND.flush,
      COMMAND.trim,
      COMMAND.writeZeroes,
    ]);
    const most = random.chance(0.2) ? CELLS_OF_REQUEST_MAX : 4;
    const count = command === COMMAND.flush ? 0 : random.whole(1, most);
    const first = random.whole(0, CELLS - Math.max(1, count));
    const cells = Array.from({ length: count }, (_, index) => first + index);
    if (cells.some((cell) => this.#busy.has(cell))) return null;
    const fua = command !== COMMAND.read && command !== COMMAND.flush && random.chance(0.2);
    return this.#job(client, command, cells, fua);
  }

  #job(client: ModelClient, command: number, cells: readonly number[], fua: boolean): Job {
    this.#value += 1;
    const value = command === COMMAND.write ? this.#value : ZERO;
    const { mark, losses } = this.model;
    return { command, cells, value, fua, mark, losses, client, answered: false };
  }

  #send(job: Job, then: () => void): void {
    this.#requests += 1;
    this.#jobs.add(job);
    for (const cell of job.cells) this.#busy.add(cell);
    const bytes = Buffer.concat(job.cells.map((cell) => contentOf(cell, job.value)));
    const noHole = job.command === COMMAND.writeZeroes && this.random.chance(0.5);
    job.client.send(
      {
        command: job.command,
        flags: (job.fua ? FLAG.fua : 0) | (noHole ? FLAG.noHole : 0),
        offset: (job.cells[0] ?? 0) * CELL_BYTES,
        length: job.cells.length * CELL_BYTES,
        ...(job.command === COMMAND.write ? { data: bytes } : {}),
      },
      (reply) => {
        job.answered = true;
        this.#finish(job);
        this.#judge(job, reply);
        then();
      },
    );
    this.#watchEnd(job, then);
  }

  /**
   * A client that is closed gets no reply. What it asked for may be done or not, and others use the
   * cells again: nothing of it may come after what they are told.
   */
  #watchEnd(job: Job, then: () => void): void {
    const { clock } = this.world;
    clock.at(clock.nowMs() + 50, () => {
      if (job.answered || !this.#jobs.has(job)) return;
      if (!job.client.isOpen) {
        this.#finish(job);
        this.#endedUnknown(job);
        then();
        return;
      }
      this.#watchEnd(job, then);
    });
  }

  #finish(job: Job): void {
    this.#jobs.delete(job);
    for (const cell of job.cells) this.#busy.delete(cell);
  }

  #endedUnknown(job: Job): void {
    for (const cell of job.cells) {
      if (job.command === COMMAND.trim) this.model.perhapsTrimmed(cell);
      else if (job.command !== COMMAND.read) this.model.perhapsWritten(cell, job.value);
    }
  }

  #judge(job: Job, reply: ModelReply): void {
    if (reply.error !== 0) {
      this.#errors += 1;
      this.#endedUnknown(job);
      this.#judgeError(job, reply.error);
      return;
    }
    const model = this.model;
    let wrong: string | null = null;
    if (job.command === COMMAND.flush) wrong = model.flushed(job.client, job.mark, job.losses);
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
    if (wrong !== null) this.world.fault(wrong);
  }

  #judgeError(job: Job, error: number): void {
    if (error !== EIO) {
      this.world.fault(`command ${job.command} failed with errno ${error}`);
      return;
    }
    if (this.#isClosing || this.#hadOtherDisk) {
      if (job.command === COMMAND.flush) this.model.flushFailed(job.client, job.losses);
      return;
    }
    const { nowMs } = this.world;
    const sinceMs = this.#awaySinceMs ?? this.#heldSinceMs;
    const awayMs = sinceMs === null ? -1 : nowMs - sinceMs;
    if (awayMs >= this.#latencyMs - 0.001) return;
    const { client, losses } = job;
    const isFlush = job.command === COMMAND.flush;
    const why = isFlush ? this.model.flushFailed(client, losses) : 'not a flush';
    if (why !== null) {
      this.world.fault(`EIO for command ${job.command} after ${awayMs} ms away (${why})`);
    }
  }

  async #readEverything(): Promise<void> {
    for (let cell = 0; cell < CELLS; cell += 1) {
      const client = this.#client();
      if (client === null) break;
      this.#send(this.#job(client, COMMAND.read, [cell], false), () => undefined);
    }
    const { world } = this;
    if (!(await world.when(() => this.#jobs.size === 0, 120_000))) {
      world.fault('reads in good weather are not answered');
    }
  }

  async #flushTwice(): Promise<void> {
    for (let round = 0; round < 2; round += 1) {
      const client = this.#client();
      if (client === null) return;
      this.#send(this.#job(client, COMMAND.flush, [], false), () => undefined);
      await this.world.when(() => this.#jobs.size === 0, 120_000);
    }
  }

  #checkDecoy(): void {
    if (this.decoy.extent(0, DISK_BYTES).mapped || this.decoy.unflushedBytes > 0) {
      this.world.fault('a write landed on another disk');
    }
  }
}
