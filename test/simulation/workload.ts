import { CELL_BYTES, contentOf, ZERO } from './cell-content.js';
import { COMMAND, FLAG, type ModelClient, type ModelReply } from './model-client.js';
import type { Seeded } from './seeded.js';
import type { Job } from './storm-types.js';
import type { StormUnit } from './storm-unit.js';
import type { World } from './world.js';

const CELLS_OF_REQUEST_MAX = 40;
const COMMANDS = [
  COMMAND.read,
  COMMAND.read,
  COMMAND.write,
  COMMAND.write,
  COMMAND.write,
  COMMAND.flush,
  COMMAND.trim,
  COMMAND.writeZeroes,
] as const;

export type WorkloadOptions = {
  readonly world: World;
  readonly random: Seeded;
  readonly cells: number;
  /** Cells most requests are about; the fewer, the sooner one follows another. */
  readonly hotCells: number;
  /** Clients a unit has at a time. */
  readonly clientsMax: number;
  /** A unit that is spared answers within this. */
  readonly answerMsMax: number;
};

/** What the clients of a storm do: requests of every kind, each to cells that no other request uses now. */
export class Workload {
  readonly #options: WorkloadOptions;
  #value = 0;
  requests = 0;
  /** No new requests begin by themselves. */
  isOver = false;

  constructor(options: WorkloadOptions) {
    this.#options = options;
  }

  /** One more request at a time for this unit, for as long as the storm lasts. */
  addSlot(unit: StormUnit): void {
    this.#later(() => this.#work(unit));
  }

  /** A client of the unit; null while there can be none. */
  client(unit: StormUnit): ModelClient | null {
    const { world, random, clientsMax } = this.#options;
    const open = unit.openClients();
    if (open.length < clientsMax && world.exporter.has(unit.lun) && !this.isOver) {
      return this.newClient(unit);
    }
    return open.length === 0 ? null : random.pick(open);
  }

  newClient(unit: StormUnit): ModelClient {
    const client = this.#options.world.newClient(unit.lun);
    client.onClosed = () => unit.clientGone(client);
    unit.clients.push(client);
    unit.model.clientCame(client);
    return client;
  }

  /**
   * As a machine that was restarted does: a new client writes the cells again, flushes and reads
   * them.
   */
  useAgain(unit: StormUnit, cells: readonly number[]): void {
    if (!this.#options.world.exporter.has(unit.lun)) return;
    const client = this.newClient(unit);
    for (const cell of cells) {
      if (unit.busy.has(cell)) continue;
      this.send(unit, this.job(unit, client, COMMAND.write, [cell]), () => {
        if (!client.isOpen) return;
        this.send(unit, this.job(unit, client, COMMAND.flush, []));
        if (unit.busy.has(cell)) return;
        this.send(unit, this.job(unit, client, COMMAND.read, [cell]));
      });
    }
  }

  job(
    unit: StormUnit,
    client: ModelClient,
    command: number,
    cells: readonly number[],
    fua = false,
  ): Job {
    this.#value += 1;
    const value = command === COMMAND.write ? this.#value : ZERO;
    const { mark, losses } = unit.model;
    return { command, cells, value, fua, mark, losses, client, isOver: false };
  }

  send(unit: StormUnit, job: Job, then: (reply: ModelReply) => void = () => undefined): void {
    this.requests += 1;
    unit.begin(job);
    const bytes = Buffer.concat(job.cells.map((cell) => contentOf(cell, job.value)));
    const noHole = job.command === COMMAND.writeZeroes && this.#options.random.chance(0.5);
    if (unit.isSpared) this.#watchDelay(unit, job);
    job.client.send(
      {
        command: job.command,
        flags: (job.fua ? FLAG.fua : 0) | (noHole ? FLAG.noHole : 0),
        offset: (job.cells[0] ?? 0) * CELL_BYTES,
        length: job.cells.length * CELL_BYTES,
        ...(job.command === COMMAND.write ? { data: bytes } : {}),
      },
      (reply) => {
        unit.answered(job, reply);
        then(reply);
      },
    );
  }

  #work(unit: StormUnit): void {
    if (this.isOver) return;
    const client = this.client(unit);
    const job = client === null ? null : this.#newJob(unit, client);
    const again = () => this.#later(() => this.#work(unit));
    if (job === null) {
      again();
      return;
    }
    this.send(unit, job, (reply) => {
      if (reply.error === 0) this.#writeOnceMore(unit, job);
      again();
    });
    this.#whenClientGone(job, again);
  }

  /** What was just written is written again at once, as a file system does with its journal. */
  #writeOnceMore(unit: StormUnit, { command, cells, client }: Job): void {
    const [cell = 0] = cells;
    if (command !== COMMAND.write || this.isOver || !client.isOpen) return;
    if (!this.#options.random.chance(0.25) || unit.busy.has(cell)) return;
    this.send(unit, this.job(unit, client, COMMAND.write, [cell]));
  }

  /** A client that goes gets no reply, and its slot goes on with another. */
  #whenClientGone(job: Job, then: () => void): void {
    const { clock, nowMs } = this.#options.world;
    clock.at(nowMs + 500, () => {
      if (!job.client.isOpen && job.isOver) then();
      else if (!job.isOver) this.#whenClientGone(job, then);
    });
  }

  #newJob(unit: StormUnit, client: ModelClient): Job | null {
    const { random, cells, hotCells } = this.#options;
    const command = random.pick(COMMANDS);
    const most = random.chance(0.15) ? CELLS_OF_REQUEST_MAX : 4;
    const among = random.chance(0.8) ? Math.max(hotCells, 1) : cells;
    const count = command === COMMAND.flush ? 0 : Math.min(random.whole(1, most), among);
    const first = random.whole(0, among - Math.max(1, count));
    const chosen = Array.from({ length: count }, (_, index) => first + index);
    if (chosen.some((cell) => unit.busy.has(cell))) return null;
    const fua = command !== COMMAND.read && command !== COMMAND.flush && random.chance(0.2);
    return this.job(unit, client, command, chosen, fua);
  }

  #watchDelay(unit: StormUnit, job: Job): void {
    const { world, answerMsMax } = this.#options;
    world.clock.at(world.nowMs + answerMsMax, () => {
      if (job.isOver) return;
      const seconds = answerMsMax / 1000;
      world.fault(
        `LUN ${unit.lun}, which is well: command ${job.command} has no answer after ${seconds} s`,
      );
    });
  }

  #later(action: () => void): void {
    const { world, random } = this.#options;
    world.clock.at(world.nowMs + random.spread(1, 2000), action);
  }
}
