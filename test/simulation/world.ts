import { ProductError } from '../../src/base/errors.js';
import type { LogicalUnit } from '../../src/bridge/logical-unit.js';
import type { ProductEvent, SessionOptions } from '../../src/config/contract.js';
import type { SendBatch } from '../../src/io/send-batch.js';
import type { PortalAddress } from '../../src/iscsi/login/portal.js';
import { samePortal } from '../../src/iscsi/session/portal-list.js';
import type { BlockSession } from '../../src/session/block-session.js';
import type { PathPlace } from '../../src/session/paths/path-places.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import type { NegotiationSettings } from '../../src/target/negotiation.js';
import type { PortGroup, PortGroupSettings } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';
import { sessionOptions } from '../helpers/session-options.js';
import { CommandHooks } from './command-hooks.js';
import { ModelClient } from './model-client.js';
import { Network } from './network.js';
import type { Seeded } from './seeded.js';
import { SESSION_ID, SimulatedProcess } from './simulated-process.js';
import { settle, VirtualClock } from './virtual-clock.js';
import type { WorldExporter } from './world-exporter.js';
import { WorldRetained } from './world-retained.js';

export const TARGET_NAME = 'iqn.2024-01.com.example:disk';
const ISID = Buffer.from([0x80, 1, 2, 3, 4, 5]);

const OPTIONS: SessionOptions = sessionOptions({
  queueDepthMax: 32,
  heldBytesMax: 4 << 20,
  firstBurstLength: 65_536,
});

export type WorldOptions = {
  readonly random: Seeded;
  readonly session?: Partial<SessionOptions>;
  /** How many; 1 by default. */
  readonly luns?: number;
  readonly disk?: Partial<TargetDiskOptions> & { readonly sizeBytes?: number };
  readonly negotiation?: Partial<NegotiationSettings>;
  /** Portals of the target, each with a network and a portal group of its own; 1 by default. */
  readonly portals?: number;
  /** Portals that the session knows; all by default. */
  readonly told?: number;
  /** States of the portal groups, by tag (1, 2, …); without them the disks report none. */
  readonly portGroups?: Map<number, PortGroup>;
  readonly portGroupSettings?: PortGroupSettings;
};

/**
 * The whole product from NBD bytes to iSCSI bytes (NbdConnection, OutageQueue, ScsiDisk, Session,
 * BlockSession with its gate) against the embedded target, in virtual time.
 */
export class World {
  readonly clock = new VirtualClock();
  readonly random: Seeded;
  /** By LUN: 0, 1, … */
  readonly disks: readonly TargetDisk[];
  readonly node: TargetNode;
  /** That of the first portal, and all. */
  readonly network: Network;
  readonly networks: readonly Network[];
  /** What happens to commands at the target; `node.faults.onCommand` set by a test replaces it. */
  readonly commands = new CommandHooks();
  readonly events: (ProductEvent & { readonly atMs: number })[] = [];
  /** Rules that were broken, in words. */
  readonly faults: string[] = [];
  readonly isids = new Set<string>();
  readonly options: SessionOptions;
  onEvent: (event: ProductEvent) => void = () => undefined;
  /** What a process waits for when it writes down where its sessions go. */
  onPlaces: () => Promise<void> = async () => undefined;
  /** What the processes record of losses that were not reported. */
  readonly #lossRecord = new Set<number>();
  /** What they retain, in memory that outlives them. */
  readonly #retained = new WorldRetained();
  #process: SimulatedProcess;
  #isid = ISID;
  #isidsMax = 1;
  readonly #told: number;
  /** What the processes write down of where their sessions go. */
  #places: readonly PathPlace[] = [];

  constructor(options: WorldOptions) {
    this.random = options.random;
    this.options = { ...OPTIONS, ...options.session };
    const disk = { sizeBytes: 1 << 20, ...options.disk };
    this.disks = Array.from({ length: options.luns ?? 1 }, (_, lun) =>
      TargetDisk.ram({ serial: lun === 0 ? 'RIGHT' : `RIGHT${lun}`, ...disk }),
    );
    const portals = Array.from({ length: options.portals ?? 1 }, (_, index) => ({
      address: `192.0.2.${index + 1}`,
      port: 3260,
      portalGroupTag: index + 1,
    }));
    this.node = new TargetNode({
      targets: [
        {
          name: TARGET_NAME,
          luns: new Map(this.disks.entries()),
          portals,
          ...(options.portGroups === undefined ? {} : { portGroups: options.portGroups }),
          portGroupSettings: options.portGroupSettings ?? {},
        },
      ],
      clock: this.clock,
      ...(options.negotiation === undefined ? {} : { negotiation: options.negotiation }),
      faults: {
        onCommand: this.commands.ask,
        onLogin: ({ isid, tsih, targetName }) => {
          const isDiscovery = targetName === '';
          if (isDiscovery) return undefined;
          this.isids.add(isid);
          if (tsih !== 0) this.fault(`a login with TSIH ${tsih}`);
          return undefined;
        },
      },
    });
    const { clock, random, node } = this;
    this.networks = portals.map(({ address }) => new Network({ clock, random, node, address }));
    this.network = this.networks[0]!;
    this.#isidsMax = portals.length * (this.options.sessionsPerPortal ?? 1);
    this.#told = options.told ?? portals.length;
    this.#process = this.#newProcess('once');
  }

  /** Its disks may be reached over several sessions. */
  get #hasPaths(): boolean {
    return this.networks.length * (this.options.sessionsPerPortal ?? 1) > 1;
  }

  get nowMs(): number {
    return this.clock.nowMs();
  }

  get process(): SimulatedProcess {
    return this.#process;
  }

  get stack(): BlockSession {
    return this.#process.stack;
  }

  get flushes(): SendBatch {
    return this.#process.flushes;
  }

  get exporter(): WorldExporter {
    return this.#process.exporter;
  }

  get luns(): readonly number[] {
    return [...this.disks.keys()];
  }

  /** Of LUN 0. */
  get disk(): TargetDisk {
    return this.disks[0]!;
  }

  /** Of LUN 0. */
  get unit(): LogicalUnit {
    return this.unitOf(0)!;
  }

  unitOf(lun: number): LogicalUnit | undefined {
    return this.stack.units.find((unit) => unit.lun === lun);
  }

  fault(words: string): void {
    this.faults.push(`${(this.nowMs / 1000).toFixed(3)} s: ${words}`);
  }

  /** Logs in and exports every LUN. */
  async start(): Promise<void> {
    await this.until(this.#process.start(this.luns), 60_000);
  }

  /** `kill -9`: what the process knew is gone, and its sockets are the kernel's to close. */
  kill(): void {
    this.#process.die();
  }

  /** After a kill: the next process takes over the same session and its disks, as `attach` does. */
  async takeOver(): Promise<void> {
    const disks = this.stack.units.map(({ lun, facts }) => ({ lun, facts }));
    this.#process = this.#newProcess('resume');
    await this.#process.resume(disks);
  }

  /**
   * After a kill: the next process knows nothing and logs in anew, with another ISID, until it
   * succeeds or `isOver` says that it is not needed.
   */
  async startAnew(isOver: () => boolean = () => false): Promise<void> {
    this.#isidsMax += 1;
    this.#lossRecord.clear();
    this.#places = [];
    this.#retained.clear();
    this.#isid = Buffer.from(ISID);
    this.#isid.writeUInt16BE(this.#isidsMax, 4);
    for (;;) {
      this.#process = this.#newProcess('once');
      const mine = this.#process;
      try {
        await mine.start(this.luns);
        return;
      } catch (error) {
        if (!(error instanceof ProductError)) throw error;
        await mine.stack.close({ force: true });
        if (isOver()) throw error;
      }
      await new Promise<void>((resolve) => {
        this.clock.at(this.nowMs + 1000, resolve);
      });
    }
  }

  #newProcess(firstLogin: 'once' | 'resume'): SimulatedProcess {
    const told = this.networks.slice(0, this.#told).map(portalOf);
    const known = this.#places.map(({ portal }) => portal);
    const all = [...known, ...told].map(({ host, port }) => ({ host, port }));
    return new SimulatedProcess({
      firstLogin,
      isid: this.#isid,
      networks: this.networks,
      portals: all.filter((one, at) => at === all.findIndex((other) => samePortal(one, other))),
      spares: this.#places.filter(({ isSpare }) => isSpare).map(({ portal }) => portal),
      onPaths: async (places) => {
        this.#places = places;
        await this.onPlaces();
      },
      clock: this.clock,
      targetName: TARGET_NAME,
      session: this.options,
      lossRecord: this.#lossRecord,
      retained: this.#retained,
      onEvent: (event) => this.#event(event),
    });
  }

  newClient(lun = 0): ModelClient {
    const unit = this.unitOf(lun);
    if (unit === undefined) throw new Error(`no unit for LUN ${lun}`);
    const client = new ModelClient({
      resources: this.stack.resources,
      disk: { device: unit.queue, budget: unit.budget },
      lun,
      random: this.random,
      fault: (words) => this.fault(words),
    });
    this.exporter.clients.add(client);
    return client;
  }

  /** Lets `ms` pass. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await settle();
    while (this.clock.step(untilMs)) await settle();
    this.clock.skipTo(untilMs);
  }

  /** Lets time pass until `isSo`, at most `withinMs`; false when it never was. */
  async when(isSo: () => boolean, withinMs: number): Promise<boolean> {
    const untilMs = this.nowMs + withinMs;
    await settle();
    while (!isSo()) {
      if (!this.clock.step(untilMs)) return false;
      await settle();
    }
    return true;
  }

  /** Lets time pass until `promise` settles. */
  async until<T>(promise: Promise<T>, withinMs: number): Promise<T> {
    let isOver = false;
    const over = () => {
      isOver = true;
    };
    promise.then(over, over);
    if (!(await this.when(() => isOver, withinMs))) {
      throw new Error(`nothing came of it in ${withinMs / 1000} s of virtual time`);
    }
    return promise;
  }

  /** The target process goes away and comes back, with or without its power. */
  restartTarget(options: { readonly powerLoss: boolean }): void {
    for (const { links } of this.networks) for (const link of [...links]) link.cut();
    this.node.restart(options);
  }

  /** Closes everything and looks for what is left over. */
  async end(options: { readonly force?: boolean } = {}): Promise<void> {
    await this.until(this.stack.close(options), 120_000);
    await this.pass(120_000);
    const { budget } = this.stack.resources;
    if (budget.requests !== 0) this.fault(`${budget.requests} requests still hold the budget`);
    if (budget.bytes !== 0) this.fault(`${budget.bytes} bytes still hold the budget`);
    const { pool } = this.#process;
    if (pool.inUse !== 0) this.fault(`${pool.inUse} slabs are still in use`);
    if (this.clock.pending !== 0) this.fault(`${this.clock.pending} timers are still set`);
    if (this.isids.size > this.#isidsMax) this.fault(`${this.isids.size} different ISIDs`);
    for (const { sessionId } of this.events) {
      if (sessionId !== SESSION_ID && !this.#hasPaths)
        this.fault(`an event of session ${sessionId}`);
    }
  }

  #event(event: ProductEvent): void {
    this.events.push({ ...event, atMs: this.nowMs });
    this.onEvent(event);
  }
}

/** The portal of the target in this network. */
export function portalOf({ address }: Network): PortalAddress {
  return { host: address, port: 3260 };
}
