import type { TargetDisk } from '../../src/target/disk.js';
import { CELL_BYTES } from './cell-content.js';
import type { ModelClient } from './model-client.js';
import type { ModelDisk } from './model-disk.js';
import type { Weather } from './network.js';
import type { Seeded } from './seeded.js';
import { TARGET_NAME, type World } from './world.js';

/** What a fault needs of the storm it happens in. */
export interface StormScene {
  readonly world: World;
  readonly random: Seeded;
  readonly model: ModelDisk;
  readonly decoy: TargetDisk;
  /** Good weather has come: no fault any more. */
  readonly isCalm: boolean;
  tell(words: string): void;
  clients(): readonly ModelClient[];
  /** Requests are under way. */
  isBusy(): boolean;
  /** What a cell holds at the target; null where a request is under way. */
  valueAtTarget(cell: number): number | null;
  otherDiskCame(): void;
  latencyChanged(latencyMs: number): void;
}

/** Everything that can go wrong, each at the seed's pleasure. */
export class Strikes {
  readonly #scene: StormScene;

  constructor(scene: StormScene) {
    this.#scene = scene;
  }

  /** One fault, now. */
  strike(): void {
    const { random } = this.#scene;
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
      () => this.#attention(),
      () => this.#smallWindow(),
      () => this.#otherLatency(),
    ];
    random.pick(strikes)();
  }

  /** Ends a fault after a while, unless good weather has ended it already. */
  #undo(afterMs: number, action: () => void): void {
    const { clock } = this.#scene.world;
    clock.at(clock.nowMs() + afterMs, () => {
      if (!this.#scene.isCalm) action();
    });
  }

  #cutInBytes(): void {
    const link = this.#scene.world.network.current;
    const bytes = Math.floor(this.#scene.random.spread(1, 400_000));
    this.#scene.tell(`the link breaks in ${bytes} bytes`);
    if (link === null) return;
    if (this.#scene.random.chance(0.5)) link.cutAfterSent = bytes;
    else link.cutAfterReceived = bytes;
  }

  #badWeather(): void {
    const { random } = this.#scene;
    const { network } = this.#scene.world;
    const weather = random.pick<Weather>(['refused', 'unreachable', 'unknownHost', 'blackhole']);
    const forMs = random.spread(100, 40_000);
    this.#scene.tell(`the network is ${weather} for ${forMs.toFixed(0)} ms`);
    network.become(weather);
    if (weather !== 'blackhole' || random.chance(0.3)) network.current?.cut();
    this.#undo(forMs, () => network.become('up'));
  }

  #restart(): void {
    const scene = this.#scene;
    const { random } = scene;
    const { world } = this.#scene;
    const powerLoss = random.chance(0.5);
    const downMs = random.spread(1, 30_000);
    this.#scene.tell(
      `the target restarts, down for ${downMs.toFixed(0)} ms, power loss: ${powerLoss}`,
    );
    world.network.become('refused');
    const salt = random.whole(0, 1 << 20);
    for (const link of [...world.network.links]) link.cut();
    world.node.restart();
    // As a real cache, it has written back what it liked, a cell at a time.
    if (powerLoss) world.disk.powerLoss((lba) => ((lba >> 3) * 2654435761 + salt) % 3 === 0);
    this.#scene.model.restarted({
      powerLoss,
      isBusy: scene.isBusy(),
      valueOf: (cell) => scene.valueAtTarget(cell),
    });
    this.#undo(downMs, () => world.network.become('up'));
  }

  #refuseLogins(): void {
    const { random } = this.#scene;
    const { node, network } = this.#scene.world;
    const status = random.pick([
      { class: 2, detail: 0 },
      { class: 2, detail: 2 },
      { class: 2, detail: 3 },
      { class: 3, detail: 0 },
      { class: 3, detail: 1 },
      { class: 3, detail: 2 },
    ]);
    const forMs = random.spread(100, 30_000);
    this.#scene.tell(`logins are refused with ${status.class}/${status.detail} for ${forMs} ms`);
    node.faults.loginStatus = status;
    network.current?.cut();
    this.#undo(forMs, () => {
      node.faults.loginStatus = undefined;
    });
  }

  #badCommands(): void {
    const { random } = this.#scene;
    const { faults } = this.#scene.world.node;
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
    if (what === 'ignore' || what === 'drop-response') {
      this.#scene.model.flushMayAlwaysFail = true;
    }
    const part = random.between(0.05, 1);
    let left = random.whole(1, 6);
    this.#scene.tell(`${left} commands meet ${JSON.stringify(what)}`);
    if (random.chance(0.3)) faults.onTaskManagement = () => 'ignore';
    faults.onCommand = () => {
      if (left === 0 || this.#scene.isCalm || !random.chance(part)) return undefined;
      left -= 1;
      return what;
    };
  }

  /** Writes that were slow arrive at the disk although their link has gone. */
  #ghosts(): void {
    const { random } = this.#scene;
    const { node, network } = this.#scene.world;
    const delayMs = random.spread(10, 5000);
    this.#scene.tell(`commands take ${delayMs.toFixed(0)} ms, and outlive the link`);
    // The session may abort what takes so long, and then nobody hears its answer.
    this.#scene.model.flushMayAlwaysFail = true;
    let left = 6;
    node.faults.onCommand = () => {
      if (left === 0 || this.#scene.isCalm) return undefined;
      left -= 1;
      return { delayMs, outlivesLink: true };
    };
    // Others write to the same cells while the writes of one that has left are still slow.
    if (random.chance(0.5)) this.#undo(random.spread(10, delayMs), () => this.#clientLeaves());
    else this.#undo(random.spread(10, 5000), () => network.current?.cut());
  }

  #otherDisk(): void {
    const { random } = this.#scene;
    const { world } = this.#scene;
    const target = [...world.node.targets.values()][0]!;
    const forMs = random.spread(1000, 30_000);
    this.#scene.tell(`another disk is behind the LUN for ${forMs.toFixed(0)} ms`);
    this.#scene.otherDiskCame();
    for (const link of [...world.network.links]) link.cut();
    world.node.restart();
    this.#scene.model.perhapsRestarted();
    target.luns.set(0, this.#scene.decoy);
    this.#undo(forMs, () => {
      for (const link of [...world.network.links]) link.cut();
      world.node.restart();
      target.luns.set(0, world.disk);
    });
  }

  #growth(): void {
    const { disk } = this.#scene.world;
    this.#scene.tell('the disk grows');
    disk.resize(disk.sizeBytes + this.#scene.random.whole(1, 16) * CELL_BYTES);
  }

  #asyncMessage(): void {
    const { random } = this.#scene;
    const event = random.pick([1, 2, 3, 4]);
    this.#scene.tell(`async message ${event}`);
    for (const connection of this.#scene.world.node.connections) {
      connection.sendAsync({ event, parameters: [0, random.whole(0, 3), random.whole(0, 3)] });
    }
  }

  /** The disk asks for attention in the middle of everything. */
  #attention(): void {
    const attention = this.#scene.random.pick([
      { asc: 0x29, ascq: 0x00 },
      { asc: 0x2a, ascq: 0x01 },
      { asc: 0x2a, ascq: 0x09 },
      { asc: 0x3f, ascq: 0x03 },
      { asc: 0x3f, ascq: 0x0e },
      { asc: 0x28, ascq: 0x00 },
    ]);
    this.#scene.tell(`unit attention ${attention.asc.toString(16)}/${attention.ascq.toString(16)}`);
    if (attention.asc === 0x29) {
      this.#scene.model.perhapsRestarted();
    }
    this.#scene.world.node.raiseAttention(TARGET_NAME, 0, attention);
  }

  #smallWindow(): void {
    const { node } = this.#scene.world;
    const size = this.#scene.random.whole(1, 4);
    this.#scene.tell(`a command window of ${size}`);
    node.setCommandWindow(size);
    this.#undo(this.#scene.random.spread(100, 10_000), () => node.setCommandWindow(128));
  }

  #otherLatency(): void {
    const seconds = this.#scene.random.pick([1, 10, 30, Number.POSITIVE_INFINITY]);
    this.#scene.tell(`a removal latency of ${seconds} s`);
    this.#scene.world.stack.setRemovalLatency(seconds);
    this.#scene.latencyChanged(seconds * 1000);
  }

  #clientLeaves(): void {
    const open = this.#scene.clients().filter((client) => client.isOpen);
    if (open.length === 0) return;
    this.#scene.tell('a client leaves');
    this.#scene.random.pick(open).close();
  }
}
