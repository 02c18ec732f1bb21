import { SlabPool } from '../../src/base/slab.js';
import type { LunUnit } from '../../src/bridge/lun-unit.js';
import type { SessionOptions, StackEvent, StackExport } from '../../src/daemon/contract.js';
import { findDisks } from '../../src/daemon/disk-probe.js';
import type { LunExporter } from '../../src/daemon/lun-exporter.js';
import { SessionStack } from '../../src/daemon/session-stack.js';
import { FlushList } from '../../src/io/flush-list.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import type { NegotiationSettings } from '../../src/target/negotiation.js';
import { TargetNode } from '../../src/target/target.js';
import { ModelClient } from './model-client.js';
import { Network } from './network.js';
import type { Seeded } from './seeded.js';
import { settle, VirtualClock } from './virtual-clock.js';

export const TARGET_NAME = 'iqn.2024-01.com.example:disk';
const ISID = Buffer.from([0x80, 1, 2, 3, 4, 5]);
const SESSION_ID = '0123456789abcdef';
/** One pool for all worlds of a process, for making slabs is what takes the time. */
let pool = new SlabPool({ slabsMax: 4096, idleMax: 64 });

const OPTIONS: SessionOptions = {
  initiatorName: 'iqn.2024-01.com.example:host',
  sessionType: 'data',
  chapAlgorithms: ['MD5'],
  headerDigest: ['None'],
  dataDigest: ['None'],
  removalLatencySeconds: 60,
  reconnectIntervalSeconds: 5,
  loginTimeoutSeconds: 15,
  noopIntervalSeconds: 5,
  noopTimeoutSeconds: 5,
  abortTimeoutSeconds: 15,
  logicalUnitResetTimeoutSeconds: 30,
  taskTimeoutSeconds: 60,
  portals: [],
  queueDepthMax: 32,
  heldBytesMax: 4 << 20,
  maxConnections: 1,
  errorRecoveryLevel: 0,
  initialR2T: false,
  immediateData: true,
  firstBurstLength: 65_536,
  maxBurstLength: 262_144,
  maxRecvDataSegmentLength: 262_144,
  maxOutstandingR2T: 1,
  readOnly: false,
};

export type WorldOptions = {
  readonly random: Seeded;
  readonly session?: Partial<SessionOptions>;
  readonly disk?: Partial<TargetDiskOptions> & { readonly sizeBytes?: number };
  readonly negotiation?: Partial<NegotiationSettings>;
};

/**
 * The whole product from NBD bytes to iSCSI bytes (NbdConnection, OutageQueue, ScsiDisk, Session,
 * SessionStack with its gate) against the embedded target, in virtual time.
 */
export class World {
  readonly clock = new VirtualClock();
  readonly flushes = new FlushList();
  readonly random: Seeded;
  readonly disk: TargetDisk;
  readonly node: TargetNode;
  readonly network: Network;
  readonly stack: SessionStack;
  readonly exporter: WorldExporter;
  readonly events: (StackEvent & { readonly atMs: number })[] = [];
  /** Rules that were broken, in words. */
  readonly faults: string[] = [];
  readonly isids = new Set<string>();
  readonly options: SessionOptions;
  onEvent: (event: StackEvent) => void = () => undefined;
  readonly #pool: SlabPool;

  constructor(options: WorldOptions) {
    // A world that was left in the middle keeps its own, so that it is not held against this one.
    if (pool.inUse !== 0) pool = new SlabPool({ slabsMax: 4096, idleMax: 64 });
    this.#pool = pool;
    this.random = options.random;
    this.options = { ...OPTIONS, ...options.session };
    this.disk = TargetDisk.ram({ sizeBytes: 1 << 20, serial: 'RIGHT', ...options.disk });
    this.node = new TargetNode({
      targets: [{ name: TARGET_NAME, luns: { 0: this.disk } }],
      clock: this.clock,
      ...(options.negotiation === undefined ? {} : { negotiation: options.negotiation }),
      faults: {
        onLogin: ({ isid, tsih }) => {
          this.isids.add(isid);
          if (tsih !== 0) this.fault(`a login with TSIH ${tsih}`);
          return undefined;
        },
      },
    });
    this.network = new Network({
      clock: this.clock,
      pool,
      flushes: this.flushes,
      random: this.random,
      node: this.node,
    });
    const { clock, flushes } = this;
    this.stack = new SessionStack(
      { pool, flushes, clock, openLink: this.network.open },
      { onEvent: (event) => this.#event(event), signal: new AbortController().signal },
      {
        type: 'data',
        targetName: TARGET_NAME,
        portals: [{ host: '192.0.2.1', port: 3260 }],
        identity: { sessionId: SESSION_ID, isid: ISID },
        firstLogin: 'once',
        options: this.options,
      },
    );
    this.exporter = new WorldExporter();
  }

  get nowMs(): number {
    return this.clock.nowMs();
  }

  get unit(): LunUnit {
    return this.stack.units[0]!;
  }

  fault(words: string): void {
    this.faults.push(`${(this.nowMs / 1000).toFixed(3)} s: ${words}`);
  }

  /** Logs in and exports LUN 0. */
  async start(): Promise<void> {
    const { stack } = this;
    const started = (async () => {
      await stack.login(new AbortController().signal);
      const disks = await findDisks(stack, [0]);
      stack.useExporter(this.exporter, async () => undefined);
      for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
    })();
    await this.until(started, 60_000);
  }

  newClient(): ModelClient {
    const client = new ModelClient({
      resources: this.stack.resources,
      disk: { device: this.unit.queue, budget: this.unit.budget },
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
    for (const link of [...this.network.links]) link.cut();
    this.node.restart(options);
  }

  /** Closes everything and looks for what is left over. */
  async end(options: { readonly force?: boolean } = {}): Promise<void> {
    await this.until(this.stack.close(options), 120_000);
    await this.pass(120_000);
    const { budget } = this.stack.resources;
    if (budget.requests !== 0) this.fault(`${budget.requests} requests still hold the budget`);
    if (budget.bytes !== 0) this.fault(`${budget.bytes} bytes still hold the budget`);
    if (this.#pool.inUse !== 0) this.fault(`${this.#pool.inUse} slabs are still in use`);
    if (this.clock.pending !== 0) this.fault(`${this.clock.pending} timers are still set`);
    if (this.isids.size > 1) this.fault(`${this.isids.size} different ISIDs`);
    for (const { sessionId } of this.events) {
      if (sessionId !== SESSION_ID) this.fault(`an event of session ${sessionId}`);
    }
  }

  #event(event: StackEvent): void {
    this.events.push({ ...event, atMs: this.nowMs });
    this.onEvent(event);
  }
}

/** Clients are closed with the export, and find the unit again when it is back. */
export class WorldExporter implements LunExporter {
  readonly clients = new Set<ModelClient>();
  isExported = false;
  sizeBytes = 0;

  async add(unit: LunUnit): Promise<void> {
    this.isExported = true;
    this.sizeBytes = unit.queue.sizeBytes;
  }

  async remove(): Promise<void> {
    this.isExported = false;
    this.#closeClients();
  }

  async resized(unit: LunUnit): Promise<void> {
    this.sizeBytes = unit.queue.sizeBytes;
  }

  async close(): Promise<void> {
    this.isExported = false;
    this.#closeClients();
  }

  describe(unit: LunUnit): StackExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }

  deviceOf(): undefined {
    return undefined;
  }

  #closeClients(): void {
    for (const client of this.clients) client.close();
    this.clients.clear();
  }
}
