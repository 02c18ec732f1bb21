import type { SessionOptions } from '../../src/daemon/contract.js';
import { TargetDisk } from '../../src/target/disk.js';
import { COMMAND, FLAG, type ModelClient, type ModelReply } from './model-client.js';
import { ModelDisk, ZERO } from './model-disk.js';
import type { Weather } from './network.js';
import { Seeded } from './seeded.js';
import { World } from './world.js';

const CELL_BYTES = 4096;
const CELLS = 48;
const CELLS_OF_REQUEST_MAX = 40;
const DISK_BYTES = CELLS * CELL_BYTES;
const EIO = 5;
/** Requests the clients have under way together. */
const SLOTS = 6;

export type StormReport = {
  readonly seed: number;
  readonly faults: readonly string[];
  readonly requests: number;
  readonly replies: number;
  readonly errors: number;
  readonly outages: number;
  readonly virtualSeconds: number;
  readonly story: readonly string[];
};

/** One request of a client to the cells it has for itself until it is known how it ended. */
type Job = {
  readonly command: number;
  readonly cells: readonly number[];
  readonly value: number;
  readonly fua: boolean;
  readonly mark: number;
  readonly losses: number;
  readonly client: ModelClient;
  answered: boolean;
};

/**
 * Clients at work in bad weather: requests of every kind against a model disk while the seed's
 * faults happen, then good weather, in which everything has to be answered and right.
 */
export class Storm {
  readonly world: World;
  readonly #random: Seeded;
  readonly #seed: number;
  readonly #model: ModelDisk;
  readonly #decoy: TargetDisk;
  readonly #busy = new Set<number>();
  readonly #jobs = new Set<Job>();
  readonly #clients: ModelClient[] = [];
  readonly #story: string[] = [];
  readonly #latencyMs: number;
  #value = 0;
  #stormEndsAtMs = 0;
  #isCalm = false;
  #isClosing = false;
  /** Another disk was, or may have been, behind the LUN: errors and a removal are right then. */
  #hadOtherDisk = false;
  /** Instant since which the unit has been away, or null. */
  #awaySinceMs: number | null = null;
  #requests = 0;
  #replies = 0;
  #errors = 0;

  constructor(seed: number) {
    this.#seed = seed;
    const random = new Seeded(seed);
    this.#random = random;
    const hasVolatileCache = random.chance(0.5);
    const removalLatencySeconds = random.pick([2, 5, 20, 60, Number.POSITIVE_INFINITY]);
    this.#latencyMs = removalLatencySeconds * 1000;
    const digest = random.chance(0.2) ? (['CRC32C'] as const) : (['None'] as const);
    const session: Partial<SessionOptions> = {
      removalLatencySeconds,
      reconnectIntervalSeconds: random.pick([0.5, 1, 5]),
      noopIntervalSeconds: random.pick([1, 5]),
      noopTimeoutSeconds: random.pick([1, 5]),
      taskTimeoutSeconds: random.pick([3, 10, 60]),
      abortTimeoutSeconds: random.pick([1, 5, 15]),
      logicalUnitResetTimeoutSeconds: random.pick([1, 5]),
      queueDepthMax: random.pick([1, 2, 8, 32]),
      heldBytesMax: random.pick([1 << 16, 1 << 18, 4 << 20]),
      initialR2T: random.chance(0.5),
      immediateData: random.chance(0.7),
      headerDigest: digest,
      dataDigest: digest,
      maxRecvDataSegmentLength: random.pick([8192, 65_536, 262_144]),
    };
    this.world = new World({
      random,
      session,
      disk: {
        sizeBytes: DISK_BYTES,
        writeCache: hasVolatileCache ? 'volatile' : 'none',
        thin: random.chance(0.7),
        limits: random.chance(0.3) ? { transferBlocksMax: 24, writeSameBlocksMax: 40 } : {},
      },
      negotiation: {
        initialR2T: random.chance(0.5),
        immediateData: random.chance(0.8),
        maxRecvDataSegmentLength: random.pick([8192, 65_536, 262_144]),
        defaultTime2Wait: random.pick([0, 0, 2]),
        headerDigest: ['CRC32C', 'None'],
        dataDigest: ['CRC32C', 'None'],
      },
    });
    this.#decoy = TargetDisk.ram({ sizeBytes: DISK_BYTES, serial: 'OTHER' });
    this.#model = new ModelDisk({ cells: CELLS, hasVolatileCache });
    const { network } = this.world;
    network.latencyMs = random.spread(0.05, 20);
    network.jitterMs = random.chance(0.5) ? 0 : random.spread(0.1, 50);
    this.world.onEvent = (event) => {
      if (event.event === 'sessionState') {
        this.#tell(`${event.from} → ${event.to}: ${event.reason}`);
        if (event.to === 'reconnecting') this.#awaySinceMs ??= this.world.nowMs;
      } else {
        this.#tell(`${event.event} ${'reason' in event ? event.reason : ''}`);
      }
      if (event.event === 'deviceReleased' || event.event === 'deviceAttached') {
        this.#awaySinceMs = null;
      }
    };
  }

  async run(): Promise<StormReport> {
    const { world } = this;
    await world.start();
    this.#stormEndsAtMs = world.nowMs + this.#random.between(5000, 40_000);
    for (let slot = 0; slot < SLOTS; slot += 1) this.#later(() => this.#work());
    const faults = this.#random.whole(1, 5);
    for (let index = 0; index < faults; index += 1) {
      const atMs = this.#random.between(world.nowMs, this.#stormEndsAtMs);
      world.clock.at(atMs, () => this.#strike());
    }
    await world.pass(this.#stormEndsAtMs - world.nowMs);
    if (this.#random.chance(0.15)) await this.#logoutInTheMiddle();
    else await this.#calm();
    const { outages } = world.stack.counters;
    return {
      seed: this.#seed,
      faults: world.faults,
      requests: this.#requests,
      replies: this.#replies,
      errors: this.#errors,
      outages,
      virtualSeconds: world.nowMs / 1000,
      story: this.#story,
    };
  }

  #tell(words: string): void {
    this.#story.push(`${(this.world.nowMs / 1000).toFixed(3)} s: ${words}`);
  }

  #later(action: () => void): void {
    const { clock } = this.world;
    clock.at(clock.nowMs() + this.#random.spread(1, 2000), action);
  }

  /** Good weather: everything is answered, the unit is there, and what it holds is right. */
  async #calm(): Promise<void> {
    const { world } = this;
    this.#isCalm = true;
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
    this.#tell('logout in the middle');
    // A target that answers no logout is given three seconds.
    const beganAtMs = world.nowMs;
    await world.until(world.stack.close({ force: this.#random.chance(0.5) }), 30_000);
    if (world.nowMs - beganAtMs > 3100) world.fault('the logout took more than its time');
    this.#isCalm = true;
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
    faults.onCommand = undefined;
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
    this.#clients.length = 0;
    this.#clients.push(...open);
    if (open.length < 2 && this.world.exporter.isExported && !this.#isClosing) {
      this.#clients.push(this.world.newClient());
    }
    return this.#clients.length === 0 ? null : this.#random.pick(this.#clients);
  }

  /** One slot's next request, and after its reply the one after it. */
  #work(): void {
    if (this.#isCalm || this.#isClosing) return;
    const client = this.#client();
    const job = client === null ? null : this.#newJob(client);
    if (client === null || job === null) {
      this.#later(() => this.#work());
      return;
    }
    this.#send(job, () => this.#later(() => this.#work()));
  }

  #newJob(client: ModelClient): Job | null {
    const random = this.#random;
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
    const { mark, losses } = this.#model;
    return { command, cells, value, fua, mark, losses, client, answered: false };
  }

  #send(job: Job, then: () => void): void {
    this.#requests += 1;
    this.#jobs.add(job);
    for (const cell of job.cells) this.#busy.add(cell);
    const bytes = Buffer.concat(job.cells.map((cell) => contentOf(cell, job.value)));
    const noHole = job.command === COMMAND.writeZeroes && this.#random.chance(0.5);
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
        this.#replies += 1;
        this.#finish(job);
        this.#judge(job, reply);
        then();
      },
    );
    this.#watchEnd(job, then);
  }

  /** A client that is closed gets no reply: the job ends when the server has let go of it. */
  #watchEnd(job: Job, then: () => void): void {
    const { clock } = this.world;
    clock.at(clock.nowMs() + 500, () => {
      if (job.answered || !this.#jobs.has(job)) return;
      if (!job.client.isOpen && job.client.connection.requests === 0) {
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
      if (job.command === COMMAND.trim) this.#model.perhapsTrimmed(cell);
      else if (job.command !== COMMAND.read) this.#model.perhapsWritten(cell, job.value);
    }
  }

  #judge(job: Job, reply: ModelReply): void {
    if (reply.error !== 0) {
      this.#errors += 1;
      this.#endedUnknown(job);
      this.#judgeError(job, reply.error);
      return;
    }
    const model = this.#model;
    let wrong: string | null = null;
    if (job.command === COMMAND.flush) wrong = model.flushed(job.mark);
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
      if (job.command === COMMAND.flush) this.#model.flushFailed(job.losses);
      return;
    }
    const { nowMs } = this.world;
    const awayMs = this.#awaySinceMs === null ? -1 : nowMs - this.#awaySinceMs;
    if (awayMs >= this.#latencyMs - 0.001) return;
    const why = job.command === COMMAND.flush ? this.#model.flushFailed(job.losses) : 'not a flush';
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
    if (this.#decoy.extent(0, DISK_BYTES).mapped || this.#decoy.unflushedBytes > 0) {
      this.world.fault('a write landed on another disk');
    }
  }

  /** One fault, now. */
  #strike(): void {
    const random = this.#random;
    const strikes: readonly (() => void)[] = [
      () => this.#cutInBytes(),
      () => this.#cutInBytes(),
      () => this.#badWeather(),
      () => this.#badWeather(),
      () => this.#restart(),
      () => this.#restart(),
      () => this.#refuseLogins(),
      () => this.#badCommands(),
      () => this.#otherDisk(),
      () => this.#growth(),
      () => this.#asyncMessage(),
      () => this.#clientLeaves(),
      () => this.#ghosts(),
    ];
    random.pick(strikes)();
  }

  #undo(afterMs: number, action: () => void): void {
    const { clock } = this.world;
    clock.at(clock.nowMs() + afterMs, () => {
      if (!this.#isCalm) action();
    });
  }

  #cutInBytes(): void {
    const link = this.world.network.current;
    const bytes = Math.floor(this.#random.spread(1, 400_000));
    this.#tell(`the link breaks in ${bytes} bytes`);
    if (link === null) return;
    if (this.#random.chance(0.5)) link.cutAfterSent = bytes;
    else link.cutAfterReceived = bytes;
  }

  #badWeather(): void {
    const random = this.#random;
    const { network } = this.world;
    const weather = random.pick<Weather>(['refused', 'unreachable', 'unknownHost', 'blackhole']);
    const forMs = random.spread(100, 40_000);
    this.#tell(`the network is ${weather} for ${forMs.toFixed(0)} ms`);
    network.become(weather);
    if (weather !== 'blackhole' || random.chance(0.3)) network.current?.cut();
    this.#undo(forMs, () => network.become('up'));
  }

  #restart(): void {
    const random = this.#random;
    const { world } = this;
    const powerLoss = random.chance(0.5);
    const downMs = random.spread(1, 30_000);
    this.#tell(`the target restarts, down for ${downMs.toFixed(0)} ms, power loss: ${powerLoss}`);
    world.network.become('refused');
    const salt = random.whole(0, 1 << 20);
    for (const link of [...world.network.links]) link.cut();
    world.node.restart();
    // As a real cache, it has written back what it liked, a cell at a time.
    if (powerLoss) world.disk.powerLoss((lba) => ((lba >> 3) * 2654435761 + salt) % 3 === 0);
    this.#model.restarted({
      powerLoss,
      isBusy: this.#jobs.size > 0,
      valueOf: (cell) => {
        if (this.#busy.has(cell)) return null;
        const value = valueIn(world.disk.read(cell * CELL_BYTES, CELL_BYTES), 0, cell);
        return typeof value === 'string' ? null : value;
      },
    });
    this.#undo(downMs, () => world.network.become('up'));
  }

  #refuseLogins(): void {
    const random = this.#random;
    const { node, network } = this.world;
    const status = random.pick([
      { class: 2, detail: 0 },
      { class: 2, detail: 2 },
      { class: 2, detail: 3 },
      { class: 3, detail: 0 },
      { class: 3, detail: 1 },
      { class: 3, detail: 2 },
    ]);
    const forMs = random.spread(100, 30_000);
    this.#tell(`logins are refused with ${status.class}/${status.detail} for ${forMs} ms`);
    node.faults.loginStatus = status;
    network.current?.cut();
    this.#undo(forMs, () => {
      node.faults.loginStatus = undefined;
    });
  }

  #badCommands(): void {
    const random = this.#random;
    const { faults } = this.world.node;
    const what = random.pick([
      'ignore',
      'drop-connection',
      'drop-response',
      'drop-connection-after',
      { status: 0x08 },
      { status: 0x28 },
      { sense: { key: 0x0b, asc: 0x47, ascq: 0 } },
      { sense: { key: 0x02, asc: 0x04, ascq: 0x01 } },
    ] as const);
    const part = random.between(0.05, 1);
    let left = random.whole(1, 6);
    this.#tell(`${left} commands meet ${JSON.stringify(what)}`);
    if (random.chance(0.3)) faults.onTaskManagement = () => 'ignore';
    faults.onCommand = () => {
      if (left === 0 || this.#isCalm || !random.chance(part)) return undefined;
      left -= 1;
      return what;
    };
  }

  /** Writes that were slow arrive at the disk although their link has gone. */
  #ghosts(): void {
    const random = this.#random;
    const { node, network } = this.world;
    const delayMs = random.spread(10, 5000);
    this.#tell(`commands take ${delayMs.toFixed(0)} ms, and outlive the link`);
    let left = 6;
    node.faults.onCommand = () => {
      if (left === 0 || this.#isCalm) return undefined;
      left -= 1;
      return { delayMs, outlivesLink: true };
    };
    this.#undo(random.spread(10, 5000), () => network.current?.cut());
  }

  #otherDisk(): void {
    const random = this.#random;
    const { world } = this;
    const target = [...world.node.targets.values()][0]!;
    const forMs = random.spread(1000, 30_000);
    this.#tell(`another disk is behind the LUN for ${forMs.toFixed(0)} ms`);
    this.#hadOtherDisk = true;
    for (const link of [...world.network.links]) link.cut();
    world.node.restart();
    this.#model.restarted({ powerLoss: false, isBusy: true, valueOf: () => null });
    target.luns.set(0, this.#decoy);
    this.#undo(forMs, () => {
      for (const link of [...world.network.links]) link.cut();
      world.node.restart();
      target.luns.set(0, world.disk);
    });
  }

  #growth(): void {
    const { disk } = this.world;
    this.#tell('the disk grows');
    disk.resize(disk.sizeBytes + this.#random.whole(1, 16) * CELL_BYTES);
  }

  #asyncMessage(): void {
    const random = this.#random;
    const event = random.pick([1, 2, 3, 4]);
    this.#tell(`async message ${event}`);
    for (const connection of this.world.node.connections) {
      connection.sendAsync({ event, parameters: [0, random.whole(0, 3), random.whole(0, 3)] });
    }
  }

  #clientLeaves(): void {
    const open = this.#clients.filter((client) => client.isOpen);
    if (open.length === 0) return;
    this.#tell('a client leaves');
    random(open, this.#random).close();
  }
}

function random<T>(list: readonly T[], seeded: Seeded): T {
  return seeded.pick(list);
}

/** The bytes of a cell that holds `value`: where it belongs and what it is, over and over. */
function contentOf(cell: number, value: number): Buffer {
  const bytes = Buffer.alloc(CELL_BYTES);
  if (value === ZERO) return bytes;
  const word = Buffer.alloc(8);
  word.writeUInt32BE(cell, 0);
  word.writeUInt32BE(value, 4);
  return bytes.fill(word);
}

/** The value that a cell's bytes spell, or what is wrong with them. */
function valueIn(bytes: Buffer, at: number, cell: number): number | string {
  const content = bytes.subarray(at, at + CELL_BYTES);
  const value = content.readUInt32BE(4);
  if (content.equals(contentOf(cell, value))) return value;
  return `cell ${cell} holds bytes of no one write (cell ${content.readUInt32BE(0)}: ${value})`;
}
