import type { ProductEvent } from '../../src/config/contract.js';
import { CELL_BYTES, contentOf } from './cell-content.js';
import { conditionsOf } from './conditions.js';
import { COMMAND, type ModelClient } from './model-client.js';
import { Seeded } from './seeded.js';
import type { StormReport, StormScene, Theme } from './storm-types.js';
import { type StormRules, StormUnit } from './storm-unit.js';
import { strikesOf } from './strikes.js';
import { Workload } from './workload.js';
import { World } from './world.js';

const CELLS = 48;
const DISK_BYTES = CELLS * CELL_BYTES;
/** Requests that the clients have under way together: of all units, and of a harmed neighbour. */
const SLOTS = 6;
const NEIGHBOUR_SLOTS = 8;
/** A unit that is spared answers within this, whatever its neighbours do. */
const ANSWER_MS_MAX = 8000;
/** Commands that reach the target in a second of virtual time; more is a loop without a pause. */
const COMMANDS_OF_SECOND_MAX = 20_000;
/** Cells that the users of a spared disk write when it is removed in order. */
const WRITTEN_BACK_CELLS = [1, 5, 9] as const;

/**
 * Clients at work in bad weather: requests of every kind against model disks while the seed's faults
 * happen, then good weather, in which everything has to be answered and right.
 */
export class Storm implements StormScene, StormRules {
  readonly world: World;
  readonly random: Seeded;
  readonly theme: Theme;
  readonly units: readonly StormUnit[];
  readonly #seed: number;
  readonly #only: readonly string[] | null;
  readonly #workload: Workload;
  readonly #story: string[] = [];
  latencyMs: number;
  isCalm = false;
  isClosing = false;
  isForced = false;
  isStarting = false;
  #endsAtMs = 0;
  #outages = 0;

  /** `only` these strikes, for trials. */
  constructor(seed: number, only: readonly string[] | null = null) {
    this.#seed = seed;
    this.#only = only;
    const random = new Seeded(seed);
    this.random = random;
    this.theme = random.chance(0.2) ? 'neighbours' : 'weather';
    const conditions = conditionsOf(random, { sizeBytes: DISK_BYTES, theme: this.theme });
    this.world = new World({ random, ...conditions });
    const { network, options } = this.world;
    network.latencyMs = random.spread(0.05, 20);
    network.jitterMs = random.chance(0.5) ? 0 : random.spread(0.1, 50);
    this.latencyMs = options.removalLatencySeconds * 1000;
    const hasVolatileCache = conditions.disk?.writeCache === 'volatile';
    this.units = this.world.disks.map((disk, lun) => {
      const retains = hasVolatileCache && options.retainWrites !== 'never';
      const isSpared = this.theme === 'neighbours' && lun === 0;
      return new StormUnit({
        lun,
        disk,
        cells: CELLS,
        hasVolatileCache,
        retains,
        isSpared,
        rules: this,
      });
    });
    this.#workload = new Workload({
      world: this.world,
      random,
      cells: CELLS,
      hotCells: random.pick([CELLS, CELLS, 12, 4]),
      clientsMax: random.whole(1, 3),
      answerMsMax: ANSWER_MS_MAX,
    });
    this.world.onEvent = (event) => this.#heard(event);
  }

  async run(): Promise<StormReport> {
    const { world, random } = this;
    await world.start();
    this.#watchCommands();
    for (const unit of this.units) unit.watch();
    this.#endsAtMs = world.nowMs + random.between(4000, 25_000);
    for (const unit of this.units) {
      if (this.theme === 'neighbours' && !unit.isSpared) unit.mayFail = true;
      const isHarmed = this.theme === 'neighbours' && !unit.isSpared;
      const slots = isHarmed ? NEIGHBOUR_SLOTS : Math.ceil(SLOTS / this.units.length);
      for (let slot = 0; slot < slots; slot += 1) this.#workload.addSlot(unit);
    }
    this.#planStrikes();
    while (world.nowMs < this.#endsAtMs) await world.pass(this.#endsAtMs - world.nowMs);
    await world.when(() => !this.isStarting, 60_000);
    if (random.chance(0.2) && !this.isStarting) await this.#logoutInTheMiddle();
    else await this.#calm();
    return {
      seed: this.#seed,
      faults: world.faults,
      requests: this.#workload.requests,
      errors: this.units.reduce((sum, unit) => sum + unit.errors, 0),
      outages: this.#outages + world.stack.counters.outages,
      virtualSeconds: world.nowMs / 1000,
      story: this.#story,
    };
  }

  victim(): StormUnit {
    return this.random.pick(this.units.filter((unit) => !unit.isSpared));
  }

  undo(afterMs: number, action: () => void): void {
    const { clock, nowMs } = this.world;
    clock.at(nowMs + afterMs, () => {
      if (!this.isCalm) action();
    });
  }

  lastUntil(atMs: number): void {
    this.#endsAtMs = Math.max(this.#endsAtMs, atMs);
  }

  latencyChanged(latencyMs: number): void {
    this.latencyMs = Math.min(this.latencyMs, latencyMs);
  }

  replace(unit: StormUnit, client: ModelClient): void {
    const left = [...unit.jobs].filter((job) => job.client === client);
    const cells = new Set(left.flatMap((job) => job.cells));
    this.tell(`a client of LUN ${unit.lun} leaves ${left.length} requests`);
    client.close();
    this.world.exporter.clients.delete(client);
    if (!this.#workload.isOver) this.#workload.useAgain(unit, [...cells].slice(0, 4));
  }

  replaceProcess(how: 'takesOver' | 'startsAnew'): void {
    const { world } = this;
    if (this.isStarting || this.isClosing) return;
    // What is found by one that knows nothing has to be the right disk.
    if (how === 'startsAnew' && this.units.some((unit) => unit.mayFail)) return;
    const unsentBytes = world.network.current?.unsentBytes ?? 0;
    this.tell(`the process is killed with ${unsentBytes} bytes in its socket, another ${how}`);
    this.#outages += world.stack.counters.outages;
    // While it is known to which clients losses were reported.
    if (how === 'takesOver') for (const unit of this.units) unit.takenOver();
    world.kill();
    this.isStarting = true;
    const start = how === 'takesOver' ? world.takeOver() : world.startAnew(() => this.isClosing);
    for (const unit of this.units) {
      unit.wentAway();
      if (how === 'startsAnew') unit.model.startedAnew();
    }
    start.then(
      () => {
        this.isStarting = false;
        for (const unit of this.units) unit.watch();
        this.tell('the next process is there');
      },
      (error: unknown) => world.fault(`the next process does not start: ${error}`),
    );
  }

  tell(words: string): void {
    this.#story.push(`${(this.world.nowMs / 1000).toFixed(3)} s: ${words}`);
  }

  #planStrikes(): void {
    const { random, world } = this;
    const strikes = strikesOf(this.theme, this.#only);
    if (strikes.length === 0) return;
    const weights = strikes.reduce((sum, { weight }) => sum + weight, 0);
    for (let left = random.whole(1, 6); left > 0; left -= 1) {
      let at = random.between(0, weights);
      const chosen = strikes.find(({ weight }) => {
        at -= weight;
        return at <= 0;
      });
      world.clock.at(random.between(world.nowMs, this.#endsAtMs), () => {
        if (!this.isCalm && !this.isClosing) chosen?.strike(this);
      });
    }
  }

  /** A command that is repeated without end and without a pause is seen by its number. */
  #watchCommands(): void {
    const { world } = this;
    let second = 0;
    let commands = 0;
    world.commands.add(() => {
      const now = Math.floor(world.nowMs / 1000);
      if (now !== second) commands = 0;
      second = now;
      commands += 1;
      if (commands === COMMANDS_OF_SECOND_MAX) world.fault(`${commands} commands in one second`);
      return undefined;
    });
  }

  #heard(event: ProductEvent): void {
    if (event.event !== 'sessionState') {
      const lun = 'lun' in event ? ` LUN ${event.lun}` : '';
      const why = 'reason' in event ? event.reason : 'message' in event ? event.message : '';
      this.tell(`${event.event}${lun} ${why}`);
      if (event.event === 'deviceRemoved') this.units[event.lun]?.removed();
      const isSpared = 'lun' in event && this.units[event.lun]?.isSpared === true;
      if (event.event === 'deviceRemoved' && isSpared) {
        this.world.fault(`LUN ${event.lun}, which is well, was removed: ${event.reason}`);
      }
      return;
    }
    const { from, to, reason } = event;
    this.tell(`${from} → ${to}: ${reason}`);
    for (const unit of this.units) {
      if (to === 'reconnecting') unit.sessionLost();
      if (to === 'loggedIn' && from !== 'loggingIn') unit.loggedInAgain();
    }
  }

  /** Good weather: everything is answered, all units exist, and what they hold is right. */
  async #calm(): Promise<void> {
    const { world } = this;
    this.tell('good weather');
    this.#workload.isOver = true;
    this.isCalm = true;
    this.#heal();
    const isQuiet = () => this.units.every((unit) => unit.jobs.size === 0 && unit.isServing);
    if (!(await world.when(isQuiet, 400_000))) {
      for (const unit of this.units) {
        const left = [...unit.jobs].map((job) => `${job.command} on ${job.cells.join(',')}`);
        const { lun, isServing } = unit;
        if (left.length === 0 && isServing) continue;
        world.fault(`LUN ${lun}: never answered: ${left.join('; ')}; serving: ${isServing}`);
      }
      this.#abandon();
      await world.end({ force: true });
      return;
    }
    await this.#readEverything();
    for (let round = 0; round < 2; round += 1) {
      await this.#all((unit, client) => [this.#workload.job(unit, client, COMMAND.flush, [])]);
    }
    for (const unit of this.units) unit.checkDecoy();
    this.isClosing = true;
    await world.end();
  }

  async #logoutInTheMiddle(): Promise<void> {
    const { world, random } = this;
    this.#workload.isOver = true;
    const force = random.chance(0.5);
    this.tell(`logout in the middle, by force: ${force}`);
    const written = force ? [] : this.units.filter((unit) => unit.isSpared);
    const values = new Map(written.map((unit) => [unit, this.#writeBackLater(unit)]));
    this.isClosing = true;
    this.isForced = force;
    // A target that answers no logout is given three seconds, disks that are probed ten more,
    // and those that are written a minute.
    const beganAtMs = world.nowMs;
    await world.until(world.stack.close({ force }), 120_000);
    const unforcedMs = written.length > 0 ? 60_000 : 13_100;
    const mostMs = force ? 3100 : unforcedMs;
    if (world.nowMs - beganAtMs > mostMs) world.fault('the logout took more than its time');
    for (const [unit, value] of values) this.#checkWrittenBack(unit, value());
    this.isCalm = true;
    this.#heal();
    this.#abandon();
    await world.end();
    for (const unit of this.units) unit.checkDecoy();
  }

  /**
   * What the users of the disk have not written yet they write when it is removed in order. The
   * returned function says what that was.
   */
  #writeBackLater(unit: StormUnit): () => number | null {
    const { world } = this;
    let value: number | null = null;
    world.exporter.writeBack.set(unit.lun, async () => {
      const isDone = (): boolean => unit.jobs.size === 0;
      const wait = (resolve: () => void): void => {
        if (isDone()) resolve();
        else world.clock.at(world.nowMs + 10, () => wait(resolve));
      };
      await new Promise<void>(wait);
      const client = unit.openClients()[0] ?? this.#workload.newClient(unit);
      const jobs = WRITTEN_BACK_CELLS.map((cell) =>
        this.#workload.job(unit, client, COMMAND.write, [cell]),
      );
      for (const job of jobs) this.#workload.send(unit, job);
      await new Promise<void>(wait);
      this.#workload.send(unit, this.#workload.job(unit, client, COMMAND.flush, []));
      await new Promise<void>(wait);
      value = jobs[0]?.value ?? null;
    });
    return () => value;
  }

  #checkWrittenBack(unit: StormUnit, value: number | null): void {
    const [cell] = WRITTEN_BACK_CELLS;
    const bytes = unit.disk.read(cell * CELL_BYTES, CELL_BYTES);
    if (value !== null && bytes.equals(contentOf(cell, value))) return;
    this.world.fault(`LUN ${unit.lun}, which is well, was taken away before it was written back`);
  }

  #abandon(): void {
    for (const unit of this.units) for (const client of [...unit.clients]) client.close();
  }

  #heal(): void {
    const { world } = this;
    const target = [...world.node.targets.values()][0]!;
    for (const { lun, disk } of this.units) target.luns.set(lun, disk);
    const { faults } = world.node;
    world.commands.clear();
    this.#watchCommands();
    faults.loginStatus = undefined;
    faults.ignoreNops = false;
    faults.onTaskManagement = undefined;
    faults.taskManagementDelayMs = undefined;
    faults.onSend = undefined;
    faults.logoutResponse = undefined;
    for (const link of world.network.links) {
      link.cutAfterSent = Number.POSITIVE_INFINITY;
      link.cutAfterReceived = Number.POSITIVE_INFINITY;
    }
    world.network.become('up');
  }

  async #readEverything(): Promise<void> {
    await this.#all((unit, client) =>
      Array.from({ length: CELLS }, (_, cell) =>
        this.#workload.job(unit, client, COMMAND.read, [cell]),
      ),
    );
  }

  async #all(
    jobsOf: (unit: StormUnit, client: ModelClient) => ReturnType<Workload['job']>[],
  ): Promise<void> {
    const { world } = this;
    for (const unit of this.units) {
      const client = unit.openClients()[0] ?? this.#workload.newClient(unit);
      for (const job of jobsOf(unit, client)) this.#workload.send(unit, job);
    }
    const isQuiet = () => this.units.every((unit) => unit.jobs.size === 0);
    if (!(await world.when(isQuiet, 120_000))) {
      world.fault('requests in good weather are not answered');
    }
  }
}
