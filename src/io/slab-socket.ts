import { getSystemErrorName } from 'node:util';
import type { SendQueue } from '../base/send-queue.js';
import type { SlabPool } from '../base/slab.js';
import type { LinkEnd } from '../iscsi/session/session-effect.js';
import { type NativeSocket, native, SocketEvent } from './native.js';
import { type Peer, type ReceiveBuffer, receiveBufferOf } from './receive-buffer.js';
import type { BatchedSender, SendBatch } from './send-batch.js';
import type { TransportAddresses } from './transport.js';

/** Who uses a socket. Handlers run inside a turn of the flush list. */
export interface SocketUser {
  /** True when all bytes are used; false keeps them in place until `receive` may go on. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean;
  /** The peer has closed, or the socket failed (`errno` is the system's name). Called once. */
  linkLost(errno: string | null): void;
  /** The queue has been emptied into the socket. */
  sent(): void;
}

/** errno name of a positive errno. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `E${errno}`;
  }
}

/**
 * A connected stream socket: receives into slabs, sends a SendQueue. One receive per wake, one
 * `sendmsg` per turn.
 */
export class SlabSocket implements BatchedSender {
  readonly #pool: SlabPool;
  readonly #queue: SendQueue;
  readonly #flushes: SendBatch;
  readonly #user: SocketUser;
  readonly #native: NativeSocket;
  readonly #window: ReceiveBuffer;
  /** The queue's, as the addon knows it. */
  #table: Int32Array | null = null;
  /** Slab whose bytes the user has not yet used, or -1. */
  #keptSlab = -1;
  #blocked = false;
  #closed = false;
  #lost = false;
  #noted = false;
  #holding = false;
  bytesReceivedTotal = 0;
  bytesSentTotal = 0;

  constructor(options: {
    readonly fd: number;
    readonly pool: SlabPool;
    readonly queue: SendQueue;
    readonly flushes: SendBatch;
    readonly user: SocketUser;
    /** Kind of the peer. */
    readonly peer: Peer;
    /** Bytes the kernel should take at a time; left to the system when absent. */
    readonly sendBufferBytes?: number;
  }) {
    this.#pool = options.pool;
    this.#queue = options.queue;
    this.#flushes = options.flushes;
    this.#user = options.user;
    this.#window = receiveBufferOf(options.pool, options.peer);
    this.#native = new native.NativeSocket(options.fd, false, this.#window.place, (kind, value) =>
      this.#event(kind, value),
    );
    this.#window.join();
    if (options.sendBufferBytes !== undefined) this.#native.setSendBuffer(options.sendBufferBytes);
    this.#queue.onFirst = () => this.#note();
    if (!this.#queue.isEmpty) this.#note();
    this.#native.watchReadable(true);
  }

  /** Stops or goes on reading. Going on says that all bytes have been used. */
  setReading(on: boolean): void {
    if (this.#closed) return;
    if (on) this.#releaseKept();
    this.#native.watchReadable(on);
  }

  flush(): void {
    this.#noted = false;
    if (this.#closed || this.#blocked || this.#holding) return;
    const queue = this.#queue;
    const wanted = queue.byteLength;
    if (wanted === 0) return;
    if (queue.table !== this.#table) {
      this.#table = queue.table;
      this.#native.useTable(queue.table);
    }
    const taken = this.#native.send(queue.firstIndex, queue.count);
    if (taken < 0) {
      this.#loseLink(errnoName(-taken));
      return;
    }
    this.bytesSentTotal += taken;
    queue.sent(taken);
    if (taken < wanted) this.#blocked = true;
    else this.#user.sent();
  }

  /** Sends nothing until `sendHeld`. */
  holdSending(): void {
    this.#holding = true;
  }

  sendHeld(): void {
    this.#holding = false;
    this.#flushes.begin();
    this.flush();
    this.#flushes.end();
  }

  /** The peer can send nothing more; what it has sent is still received, and then the end. */
  endReceiving(): void {
    if (!this.#closed) this.#native.endReceiving();
  }

  /** Both ends of a TCP connection; null for another socket, or a closed one. */
  addresses(): TransportAddresses | null {
    const [local, remote] = [this.#native.localAddress(), this.#native.remoteAddress()];
    return local === null || remote === null ? null : { local, remote };
  }

  /** Both directions end for the peer; `close` still has to be called. */
  shutDown(): void {
    if (!this.#closed) this.#native.shutDown();
  }

  /**
   * Closes at once; what is queued is not sent. What the system has taken and not sent yet is
   * dropped too on a connection to a target, unless the end is orderly.
   */
  close(end: LinkEnd = 'abrupt'): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue.onFirst = null;
    if (end === 'orderly') this.#native.closeInOrder();
    else this.#native.close();
    this.#releaseKept();
    this.#window.leave();
  }

  #note(): void {
    if (this.#noted || this.#blocked) return;
    this.#noted = true;
    this.#flushes.add(this);
  }

  #event(kind: number, value: number): void {
    this.#flushes.begin();
    switch (kind) {
      case SocketEvent.data:
        this.#received(value);
        break;
      case SocketEvent.end:
        this.#loseLink(null);
        break;
      case SocketEvent.error:
        this.#loseLink(errnoName(value));
        break;
      case SocketEvent.writable:
        this.#blocked = false;
        this.flush();
        break;
      default:
    }
    this.#flushes.end();
    // What has just been sent is not kept any more.
    if (kind === SocketEvent.data) this.#window.open();
  }

  #received(length: number): void {
    this.bytesReceivedTotal += length;
    const { slab } = this.#window;
    const start = this.#window.received(length);
    const buffer = this.#pool.buffer(slab);
    // Held until it is known whether all is used: the user may go on reading before it returns.
    this.#pool.retain(slab);
    this.#keptSlab = slab;
    const isUsed = this.#user.bytesReceived(slab, buffer, start, start + length);
    if (isUsed) this.#releaseKept();
  }

  #releaseKept(): void {
    if (this.#keptSlab >= 0) this.#pool.release(this.#keptSlab);
    this.#keptSlab = -1;
  }

  #loseLink(errno: string | null): void {
    if (this.#lost || this.#closed) return;
    this.#lost = true;
    this.#user.linkLost(errno);
  }
}
