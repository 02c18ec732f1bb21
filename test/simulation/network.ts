import type { Clock } from '../../src/base/clock.js';
import type { SendQueue } from '../../src/base/send-queue.js';
import type { SlabPool } from '../../src/base/slab.js';
import type { SendBatch } from '../../src/io/send-batch.js';
import type { TransportOpener, TransportUser } from '../../src/io/transport.js';
import type { TargetNode } from '../../src/target/target.js';
import type { Seeded } from './seeded.js';
import { SimulatedLink } from './simulated-link.js';

export type Weather = 'up' | 'refused' | 'unreachable' | 'unknownHost' | 'blackhole';

/**
 * What the kernel does with the bytes it has of a socket that is closed, or whose process ends,
 * before an orderly logout: `sends` them for as long as it takes (no SO_LINGER), or forgets them and
 * `resets` the connection (SO_LINGER with a time of 0).
 */
export type Closing = 'sends' | 'resets';

/** What a link needs of the process that has it. */
export type LinkHost = { readonly pool: SlabPool; readonly flushes: SendBatch };

/** Address of the first portal of the target; another portal has the next one. */
export const PORTAL_ADDRESS = '192.0.2.1';

/**
 * The network between the initiators and one target node, with everything that can happen to it.
 * Bytes keep their order; how they are cut into pieces and how long they take is the seed's.
 */
export class Network {
  readonly clock: Clock;
  readonly random: Seeded;
  readonly node: TargetNode;
  /** Address of the target in it. */
  readonly address: string;
  readonly links = new Set<SimulatedLink>();
  weather: Weather = 'up';
  latencyMs = 1;
  jitterMs = 0;
  opened = 0;
  /** As the product asks the kernel for it when it opens a socket. */
  closing: Closing = 'resets';

  constructor(options: {
    readonly clock: Clock;
    readonly random: Seeded;
    readonly node: TargetNode;
    readonly address?: string;
  }) {
    this.clock = options.clock;
    this.random = options.random;
    this.node = options.node;
    this.address = options.address ?? PORTAL_ADDRESS;
  }

  /** How a process opens its links. */
  openerOf(host: LinkHost): TransportOpener {
    return (_portal: unknown, queue: SendQueue, user: TransportUser) =>
      new SimulatedLink(this, host, queue, user);
  }

  /** The link in use, if there is one. */
  get current(): SimulatedLink | null {
    // A process before this one may have left one that the target has not seen the end of.
    return [...this.links].findLast((link) => link.isOpen) ?? null;
  }

  /** From now on the network is like this; a blackhole that ends releases its packets. */
  become(weather: Weather): void {
    this.weather = weather;
    if (weather === 'blackhole') return;
    for (const link of [...this.links]) link.thaw();
  }

  delayMs(): number {
    return this.latencyMs + this.random.between(0, this.jitterMs);
  }
}
