import { LinkError } from '../../src/base/errors.js';
import type { SendQueue } from '../../src/base/send-queue.js';
import type { BatchedSender } from '../../src/io/send-batch.js';
import type { Transport, TransportUser } from '../../src/io/transport.js';
import type { TargetNode } from '../../src/target/target.js';
import type { LinkHost, Network } from './network.js';
import { SlabWindow } from './slab-window.js';
import { takeFrom } from './take-from.js';

/** Bytes one direction may have on the wire; beyond it the sender is blocked, as a socket is. */
const WIRE_BYTES_MAX = 96 << 10;

type State = 'opening' | 'open' | 'closed';

/** A point both directions have to pass: first the bytes to us, then those to the target. */
type Mark = {
  readonly receivedBytes: number;
  arrivedBytes: number | null;
  readonly action: () => void;
};

/** One TCP connection of the simulation. */
export class SimulatedLink implements Transport, BatchedSender {
  bytesReceivedTotal = 0;
  bytesSentTotal = 0;
  /** The link breaks after this many more bytes in a direction; Infinity: not. */
  cutAfterSent = Number.POSITIVE_INFINITY;
  cutAfterReceived = Number.POSITIVE_INFINITY;
  readonly #network: Network;
  readonly #host: LinkHost;
  readonly #queue: SendQueue;
  readonly #user: TransportUser;
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
  /** Bytes the target has received. */
  #arrived = 0;
  #marks: Mark[] = [];

  constructor(network: Network, host: LinkHost, queue: SendQueue, user: TransportUser) {
    this.#network = network;
    this.#host = host;
    this.#queue = queue;
    this.#user = user;
    this.#window = new SlabWindow(host.pool);
    network.links.add(this);
    network.opened += 1;
    this.#later(() => this.#decide());
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Bytes that the socket has and the process has not received; it may end with them. */
  get unsentBytes(): number {
    return this.#toTarget.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  /** Nothing is on its way to us. */
  get isQuiet(): boolean {
    return this.#toUs.length === 0;
  }

  /** It is one of this process. */
  isOf(host: LinkHost): boolean {
    return this.#host === host;
  }

  /**
   * Our end closes it: `orderly` after a logout, so that what was queued still has to arrive;
   * `abrupt` so that nothing of it does. Without a word the kernel does as `Network.closing` says.
   */
  close(end?: 'orderly' | 'abrupt'): void {
    if (this.#state === 'closed') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'closed';
    this.#queue.onFirst = null;
    this.#window.close();
    this.#toUs = [];
    this.#endMarks(() => true);
    const { closing, weather } = this.#network;
    if (end === 'abrupt' || (end === undefined && closing === 'resets')) {
      // What is on its way arrives, and then the reset, which a silent network loses as well.
      this.#toTarget = weather === 'blackhole' ? [] : this.#onTheWay();
    }
    if (wasOpen) this.#deliverToTarget();
    else this.#network.links.delete(this);
  }

  /** Bytes that have left the socket: of those that wait, what a delivery under way will take. */
  #onTheWay(): Buffer[] {
    return this.#toTargetBusy ? this.#toTarget.slice(0, 1) : [];
  }

  /**
   * Calls `action` once everything that is now on its way to us has arrived, and then everything
   * that was on its way to the target by then: what arrives later was sent by one who knew. The end
   * of the link ends the wait.
   */
  afterRoundTrip(action: () => void): void {
    const toUs = this.#toUs.reduce((sum, bytes) => sum + bytes.length, 0);
    this.#marks.push({ receivedBytes: this.bytesReceivedTotal + toUs, arrivedBytes: null, action });
  }

  /** `arriving` bytes are about to be received: the process has not acted on them yet. */
  #markReceived(arriving: number): void {
    for (const mark of this.#marks) {
      if (mark.arrivedBytes !== null) continue;
      if (this.bytesReceivedTotal + arriving < mark.receivedBytes) continue;
      mark.arrivedBytes = this.bytesSentTotal + this.#queue.byteLength;
    }
    this.#endMarks((mark) => (mark.arrivedBytes ?? Number.POSITIVE_INFINITY) <= this.#arrived);
  }

  #endMarks(isOver: (mark: Mark) => boolean): void {
    if (this.#marks.length === 0) return;
    const over = this.#marks.filter(isOver);
    this.#marks = this.#marks.filter((mark) => !isOver(mark));
    for (const mark of over) mark.action();
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
    if (this.#state === 'closed') {
      // The process is not receiving these bytes: they come with the next retransmission of a kernel that has
      // tried in vain, at pauses that have grown (RFC 6298 §5.5).
      const { clock, random } = this.#network;
      clock.at(clock.nowMs() + random.spread(200, 60_000), () => this.#deliverToTarget());
      return;
    }
    this.#deliverToTarget();
    this.#deliverToUs();
  }

  flush(): void {
    if (this.#state !== 'open') return;
    const room = WIRE_BYTES_MAX - this.#wireBytes;
    if (room <= 0 || this.#queue.isEmpty) return;
    const bytes = takeFrom(this.#queue, this.#host.pool, room);
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
      { localAddress: this.#network.address, localPort: 3260 },
    );
    this.#queue.onFirst = () => this.#host.flushes.add(this);
    this.#user.linkOpened();
    this.#host.flushes.add(this);
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
    this.#arrived += bytes.length;
    this.cutAfterSent -= bytes.length;
    this.#target?.receive(bytes);
    this.#markReceived(0);
    if (this.cutAfterSent <= 0) {
      this.cut();
      return;
    }
    this.#deliverToTarget();
    if (!this.#queue.isEmpty && this.#state === 'open') this.#host.flushes.add(this);
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
    const { flushes } = this.#host;
    const bytes = this.#piece(this.#toUs, Math.min(this.cutAfterReceived, this.#window.room));
    this.#markReceived(bytes.length);
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
    this.#endMarks(() => true);
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
