import { getSystemErrorName } from 'node:util';
import type { SendQueue } from '../base/send-queue.js';
import { SLAB_BYTES, SLAB_TAIL_BYTES, type SlabPool } from '../base/slab.js';
import type { Flushable, FlushList } from './flush-list.js';
import { type NativeSocket, native, SocketEvent } from './native.js';

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
export class PumpedSocket implements Flushable {
  readonly #pool: SlabPool;
  readonly #queue: SendQueue;
  readonly #flushes: FlushList;
  readonly #user: SocketUser;
  readonly #native: NativeSocket;
  /** What the addon reads before each receive: slab, offset, length. */
  readonly #window = new Int32Array(3);
  #slab = -1;
  /** End of what has been received into the slab. */
  #filled = 0;
  #blocked = false;
  #closed = false;
  #lost = false;
  #noted = false;
  bytesReceivedTotal = 0;
  bytesSentTotal = 0;

  constructor(options: {
    readonly fd: number;
    readonly pool: SlabPool;
    readonly queue: SendQueue;
    readonly flushes: FlushList;
    readonly user: SocketUser;
    /** Bytes the kernel should take at a time; left to the system when absent. */
    readonly sendBufferBytes?: number;
  }) {
    this.#pool = options.pool;
    this.#queue = options.queue;
    this.#flushes = options.flushes;
    this.#user = options.user;
    this.#native = new native.NativeSocket(options.fd, false, this.#window, (kind, value) =>
      this.#event(kind, value),
    );
    if (options.sendBufferBytes !== undefined) this.#native.setSendBuffer(options.sendBufferBytes);
    this.#queue.onFirst = () => this.#note();
    if (!this.#queue.isEmpty) this.#note();
    this.#openWindow();
    this.#native.watchReadable(true);
  }

  /** Stops or goes on reading. Going on keeps what has been received where it is. */
  setReading(on: boolean): void {
    if (this.#closed) return;
    if (on) this.#openWindow();
    this.#native.watchReadable(on);
  }

  flush(): void {
    this.#noted = false;
    if (this.#closed || this.#blocked) return;
    const queue = this.#queue;
    const wanted = queue.byteLength;
    if (wanted === 0) return;
    const taken = this.#native.send(queue.table, queue.firstIndex, queue.count, queue.capacity);
    if (taken < 0) {
      this.#loseLink(errnoName(-taken));
      return;
    }
    this.bytesSentTotal += taken;
    queue.sent(taken);
    if (taken < wanted) this.#blocked = true;
    else this.#user.sent();
  }

  /** Both directions end for the peer; `close` still has to be called. */
  shutDown(): void {
    if (!this.#closed) this.#native.shutDown();
  }

  /** Closes at once; what is queued is not sent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue.onFirst = null;
    this.#native.close();
    if (this.#slab >= 0) this.#pool.release(this.#slab);
    this.#slab = -1;
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
  }

  #received(length: number): void {
    this.bytesReceivedTotal += length;
    const start = this.#filled;
    this.#filled = start + length;
    const slab = this.#slab;
    const used = this.#user.bytesReceived(slab, this.#pool.buffer(slab), start, this.#filled);
    if (used && !this.#closed) this.#openWindow();
  }

  /** Where the next bytes go: the start of the slab if nothing in it is in use, else on, or a new one. */
  #openWindow(): void {
    if (this.#slab >= 0 && this.#pool.references(this.#slab) === 1) this.#filled = 0;
    if (this.#slab < 0 || SLAB_BYTES - this.#filled < SLAB_TAIL_BYTES) {
      if (this.#slab >= 0) this.#pool.release(this.#slab);
      this.#slab = this.#pool.acquire();
      this.#filled = 0;
    }
    this.#window[0] = this.#slab;
    this.#window[1] = this.#filled;
    this.#window[2] = SLAB_BYTES - this.#filled;
  }

  #loseLink(errno: string | null): void {
    if (this.#lost || this.#closed) return;
    this.#lost = true;
    this.#user.linkLost(errno);
  }
}
