import type { Clock } from '../../src/base/clock.js';
import { LinkError } from '../../src/base/errors.js';
import type { SendQueue } from '../../src/base/send-queue.js';
import type { SlabPool } from '../../src/base/slab.js';
import type { Flushable, FlushList } from '../../src/io/flush-list.js';
import type { Link, LinkUser } from '../../src/io/link.js';
import type { LinkEnd } from '../../src/iscsi/session-effect.js';
import type { TargetNode } from '../../src/target/target.js';
import type { Seeded } from './seeded.js';
import { SlabWindow } from './slab-window.js';
import { takeFrom } from './take-from.js';

export type Weather = 'up' | 'refused' | 'unreachable' | 'unknownHost' | 'blackhole';

/** Bytes one direction may have on the wire; beyond it the sender is blocked, as a socket is. */
const WIRE_BYTES_MAX = 96 << 10;

/**
 * The network between the initiator and one target node, with everything that can happen to it.
 * Bytes keep their order; how they are cut into pieces and how long they take is the seed's.
 */
export class Network {
  readonly clock: Clock;
  readonly pool: SlabPool;
  readonly flushes: FlushList;
  readonly random: Seeded;
  readonly node: TargetNode;
  readonly links = new Set<SimulatedLink>();
  weather: Weather = 'up';
  latencyMs = 1;
  jitterMs = 0;
  opened = 0;

  constructor(options: {
    readonly clock: Clock;
    readonly pool: SlabPool;
    readonly flushes: FlushList;
    readonly random: Seeded;
    readonly node: TargetNode;
  }) {
    this.clock = options.clock;
    this.pool = options.pool;
    this.flushes = options.flushes;
    this.random = options.random;
    this.node = options.node;
  }

  readonly open = (_portal: unknown, queue: SendQueue, user: LinkUser): Link =>
    new SimulatedLink(this, queue, user);

  /** The link in use, if there is one. */
  get current(): SimulatedLink | null {
    for (const link of this.links) if (link.isOpen) return link;
    return null;
  }

  /** From now on the network is like this; a blackhole that ends lets go what waits. */
  become(weather: Weather): void {
    this.weather = weather;
    if (weather === 'blackhole') return;
    for (const link of [...this.links]) link.thaw();
  }

  delayMs(): number {
    return this.latencyMs + this.random.between(0, this.jitterMs);
  }
}

type State = 'opening' | 'open' | 'closed';

/** One TCP connection of the simulation. */
export class SimulatedLink implements Link, Flushable {
  bytesReceivedTotal = 0;
  bytesSentTotal = 0;
  /** The link breaks after this many more bytes in a direction; Infinity: not. */
  cutAfterSent = Number.POSITIVE_INFINITY;
  cutAfterReceived = Number.POSITIVE_INFINITY;
  readonly #network: Network;
  readonly #queue: SendQueue;
  readonly #user: LinkUser;
  readonly #window: SlabWindow;
  #state: State = 'opening';
  #target: ReturnType<TargetNode['connect']> | null = null;
  /** On their way: to the target, to us, each with a delivery under way or waiting for a thaw. */
  #toTarget: Buffer[] = [];
  #toUs: Buffer[] = [];
  #wireBytes = 0;
  #toTargetBusy = false;
  #toUsBusy = false;
  /** The target has ended the link; after the last byte we hear of it. */
  #targetEnded = false;

  constructor(network: Network, queue: SendQueue, user: LinkUser) {
    this.#network = network;
    this.#queue = queue;
    this.#user = user;
    this.#window = new SlabWindow(network.pool);
    network.links.add(this);
    network.opened += 1;
    this.#later(() => this.#decide());
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  close(end: LinkEnd): void {
    if (this.#state === 'closed') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'closed';
    this.#queue.onFirst = null;
    this.#window.close();
    this.#toUs = [];
    if (end === 'abrupt') this.#dropUnsent();
    // What is on the wire still arrives, and only then the end: the ghosts of old writes.
    if (wasOpen) this.#deliverToTarget();
    else this.#network.links.delete(this);
  }

  /** Of what waits for the target only what a delivery under way carries has left our socket. */
  #dropUnsent(): void {
    const isUnderWay = this.#toTargetBusy && this.#toTarget.length > 0;
    const most = Number.POSITIVE_INFINITY;
    this.#toTarget = isUnderWay ? [this.#piece(this.#toTarget, most)] : [];
  }

  /** The link breaks now; bytes on the wire are gone. */
  cut(): void {
    if (this.#target !== null) this.#network.node.forget(this.#target);
    this.#target = null;
    this.#toTarget = [];
    this.#toUs = [];
    this.#network.links.delete(this);
    if (this.#state === 'open') this.#fail('ECONNRESET');
  }

  thaw(): void {
    if (this.#state === 'opening') this.#later(() => this.#decide());
    this.#deliverToTarget();
    this.#deliverToUs();
  }

  flush(): void {
    if (this.#state !== 'open') return;
    const room = WIRE_BYTES_MAX - this.#wireBytes;
    if (room <= 0 || this.#queue.isEmpty) return;
    const bytes = takeFrom(this.#queue, this.#network.pool, room);
    this.bytesSentTotal += bytes.length;
    this.#wireBytes += bytes.length;
    this.#toTarget.push(bytes);
    this.#deliverToTarget();
    if (this.#queue.isEmpty) this.#user.allSent();
  }

  #later(action: () => void): void {
    const { clock } = this.#network;
    clock.at(clock.nowMs() + this.#network.delayMs(), action);
  }

  #decide(): void {
    if (this.#state !== 'opening') return;
    switch (this.#network.weather) {
      case 'blackhole':
        return;
      case 'refused':
        this.#fail('ECONNREFUSED');
        return;
      case 'unreachable':
        this.#fail('ENETUNREACH');
        return;
      case 'unknownHost':
        this.#fail('ENOTFOUND');
        return;
      case 'up':
        this.#connected();
    }
  }

  #connected(): void {
    this.#state = 'open';
    this.#target = this.#network.node.connect(
      (bytes) => {
        this.#toUs.push(Buffer.from(bytes));
        this.#deliverToUs();
      },
      (end) => {
        this.#target = null;
        this.#toTarget = [];
        if (end === 'dropped') this.#toUs = [];
        this.#targetEnded = true;
        this.#deliverToUs();
      },
      { localAddress: '192.0.2.1', localPort: 3260 },
    );
    this.#queue.onFirst = () => this.#network.flushes.add(this);
    this.#user.linkOpened();
    this.#network.flushes.add(this);
  }

  /** Sets a delivery in motion unless one is, or nothing gets through. */
  #deliverToTarget(): void {
    if (this.#toTargetBusy || this.#network.weather === 'blackhole') return;
    if (this.#toTarget.length === 0) {
      if (this.#state === 'closed') this.#leave();
      return;
    }
    this.#toTargetBusy = true;
    this.#later(() => {
      this.#toTargetBusy = false;
      if (this.#network.weather === 'blackhole') return;
      this.#arriveAtTarget();
    });
  }

  #arriveAtTarget(): void {
    const bytes = this.#piece(this.#toTarget, this.cutAfterSent);
    this.#wireBytes -= bytes.length;
    this.cutAfterSent -= bytes.length;
    this.#target?.receive(bytes);
    if (this.cutAfterSent <= 0) {
      this.cut();
      return;
    }
    this.#deliverToTarget();
    if (!this.#queue.isEmpty && this.#state === 'open') this.#network.flushes.add(this);
  }

  #deliverToUs(): void {
    if (this.#toUsBusy || this.#network.weather === 'blackhole' || this.#state !== 'open') return;
    if (this.#toUs.length === 0 && !this.#targetEnded) return;
    this.#toUsBusy = true;
    this.#later(() => {
      this.#toUsBusy = false;
      if (this.#network.weather === 'blackhole' || this.#state !== 'open') return;
      this.#arriveAtUs();
    });
  }

  #arriveAtUs(): void {
    if (this.#toUs.length === 0) {
      if (this.#targetEnded) this.#fail('ECONNRESET');
      return;
    }
    const { flushes } = this.#network;
    const bytes = this.#piece(this.#toUs, Math.min(this.cutAfterReceived, this.#window.room));
    this.cutAfterReceived -= bytes.length;
    this.bytesReceivedTotal += bytes.length;
    flushes.begin();
    this.#window.receive(bytes, (slab, buffer, start, end) =>
      this.#user.bytesReceived(slab, buffer, start, end),
    );
    if (this.isOpen) this.#window.used();
    flushes.end();
    if (this.cutAfterReceived <= 0) this.cut();
    else this.#deliverToUs();
  }

  /** The front of `from`, cut anywhere, at most `most` bytes. */
  #piece(from: Buffer[], most: number): Buffer {
    const joined = from.length === 1 ? (from[0] ?? Buffer.alloc(0)) : Buffer.concat(from);
    const { random } = this.#network;
    const wanted = random.chance(0.3) ? random.whole(1, joined.length) : joined.length;
    const length = Math.min(wanted, most);
    from.length = 0;
    if (length < joined.length) from.push(joined.subarray(length));
    return joined.subarray(0, length);
  }

  #fail(errno: string): void {
    this.#state = 'closed';
    this.#queue.onFirst = null;
    this.#window.close();
    this.#network.links.delete(this);
    this.#user.linkFailed(new LinkError(errno, `the simulated network says ${errno}`));
  }

  /** Our end is closed and everything has arrived: the target hears of it. */
  #leave(): void {
    this.#network.links.delete(this);
    const target = this.#target;
    this.#target = null;
    if (target !== null) this.#network.node.forget(target);
  }
}
