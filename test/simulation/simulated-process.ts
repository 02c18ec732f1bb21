import { SlabPool } from '../../src/base/slab.js';
import { RetainedShare } from '../../src/bridge/retained/retained-memory.js';
import type { ProductEvent, SessionOptions } from '../../src/config/contract.js';
import { SendBatch } from '../../src/io/send-batch.js';
import type { PortalAddress } from '../../src/iscsi/login/portal.js';
import type { FoundDisk } from '../../src/lun/disk-probe.js';
import { requireDisks } from '../../src/lun/find-disks.js';
import { BlockSession } from '../../src/session/block-session.js';
import type { PathPlace } from '../../src/session/paths/path-places.js';
import type { Network } from './network.js';
import { ProcessClock } from './process-clock.js';
import type { VirtualClock } from './virtual-clock.js';
import { WorldExporter } from './world-exporter.js';
import type { WorldRetained } from './world-retained.js';

export const SESSION_ID = '0123456789abcdef';
/** One pool for all processes of a test, for making slabs is what takes the time. */
let shared = newPool();

function newPool(): SlabPool {
  return new SlabPool({ slabsMax: 4096, idleMax: 64 });
}

export type ProcessOptions = {
  /** One for each portal of the target. */
  readonly networks: readonly Network[];
  /** Portals that the process knows when it begins, and those of them that the login did not name. */
  readonly portals: readonly PortalAddress[];
  readonly spares: readonly PortalAddress[];
  /** Writes down where the sessions of the process go. */
  readonly onPaths: (places: readonly PathPlace[]) => Promise<void>;
  readonly clock: VirtualClock;
  readonly targetName: string;
  readonly isid: Buffer;
  /** `resume`: it takes over from one before it, whose session may still be there. */
  readonly firstLogin: 'once' | 'resume';
  readonly session: SessionOptions;
  /** LUNs with a loss that is written down; it outlives the process. */
  readonly lossRecord: Set<number>;
  readonly retained: WorldRetained;
  readonly onEvent: (event: ProductEvent) => void;
};

/** One process of the product with one session: everything that ends with a `kill -9`. */
export class SimulatedProcess {
  readonly clock: ProcessClock;
  readonly flushes = new SendBatch();
  readonly pool: SlabPool;
  readonly stack: BlockSession;
  readonly exporter = new WorldExporter();
  readonly #networks: readonly Network[];
  isDead = false;

  constructor(options: ProcessOptions) {
    // One that was left in the middle keeps its own, so that it is not held against this one.
    if (shared.inUse !== 0) shared = newPool();
    this.pool = shared;
    this.clock = new ProcessClock(options.clock);
    this.#networks = options.networks;
    const { pool, flushes, clock } = this;
    const before = new Set(options.lossRecord);
    this.stack = new BlockSession(
      {
        pool,
        flushes,
        clock,
        openLink: (portal, queue, user) =>
          this.#networkOf(portal.host).openerOf(this)(portal, queue, user),
        retainedShare: new RetainedShare(),
      },
      {
        onEvent: (event) => {
          if (!this.isDead) options.onEvent(event);
        },
        signal: new AbortController().signal,
      },
      {
        type: 'data',
        targetName: options.targetName,
        portals: options.portals,
        spares: options.spares,
        onPaths: async (places) => {
          if (!this.isDead) await options.onPaths(places);
        },
        identity: { sessionId: SESSION_ID, isid: options.isid },
        firstLogin: options.firstLogin,
        options: options.session,
        losses: {
          wasLostBefore: (lun) => before.has(lun),
          changed: (lun, isUntold) => {
            if (this.isDead) return;
            if (isUntold) options.lossRecord.add(lun);
            else options.lossRecord.delete(lun);
          },
        },
        retained: options.retained.ofProcess(pool),
        mayHaveGhosts: options.firstLogin === 'resume',
      },
    );
  }

  #networkOf(address: string): Network {
    const found = this.#networks.find((network) => network.address === address);
    if (found === undefined) throw new Error(`no portal has the address ${address}`);
    return found;
  }

  /** Logs in and exports these LUNs; rejects when the target is not as wanted. */
  async start(luns: readonly number[]): Promise<void> {
    const { stack } = this;
    await stack.login(new AbortController().signal);
    const disks = await requireDisks(stack, luns);
    stack.useExporter(this.exporter, async () => undefined);
    for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
  }

  /** Takes over disks that a process before this one served, as `attach` does with its devices. */
  async resume(disks: readonly FoundDisk[]): Promise<void> {
    const { stack } = this;
    stack.useExporter(this.exporter, async () => undefined);
    for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
    for (const unit of stack.units) stack.takenOver(unit);
    stack.resume();
  }

  /** `kill -9`: the kernel closes its sockets, and nothing else happens any more. */
  die(): void {
    this.isDead = true;
    this.clock.die();
    for (const { links } of this.#networks) {
      for (const link of [...links]) if (link.isOf(this)) link.close();
    }
    this.exporter.die();
  }
}
