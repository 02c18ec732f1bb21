import { productError } from '../base/errors.js';
import type { SendQueue } from '../base/send-queue.js';
import type { SlabPool } from '../base/slab.js';
import type { SendBatch } from './send-batch.js';
import { SlabSocket, type SocketUser } from './slab-socket.js';

/** Room for a deep queue's read data: each reply then leaves at once, whole, in one call. */
const SEND_BUFFER_BYTES = 8 << 20;

/** How long replies that are queued may wait for a client that is to go. */
const DRAIN_MS_MAX = 1000;

/** What the server of one connection may ask of its socket. */
export interface NbdSocketDriver {
  /** Stop or go on calling `bytesReceived`. */
  setReading(on: boolean): void;
  /** Close when everything queued has been sent. */
  finish(reason: string): void;
  /** Close now. */
  fail(reason: string): void;
}

/** The server of one NBD connection, as the socket sees it. */
interface NbdServerPort {
  readonly queue: SendQueue;
  readonly isHandshaking: boolean;
  /** True when all bytes are used; false keeps them in place until reading goes on. */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean;
  repliesSent(): void;
  linkClosed(): void;
}

export type NbdServerFactory = (driver: NbdSocketDriver) => NbdServerPort;

/** What every socket of one thread shares. */
export type SocketResources = { readonly pool: SlabPool; readonly flushes: SendBatch };

/**
 * One NBD connection on a descriptor: a client of the unix socket, or the kernel's end of a
 * device. It ends when the client is gone, disconnects, or breaks the protocol.
 */
export class NbdServerConnection implements SocketUser {
  readonly connection: NbdServerPort;
  readonly #socket: SlabSocket;
  readonly #onClosed: (client: NbdServerConnection, reason: string) => void;
  #finishing: string | null = null;
  /** Set once its end is waited for; ends it at the latest. */
  #draining: NodeJS.Timeout | null = null;
  #closed = false;

  constructor(options: {
    readonly fd: number;
    readonly resources: SocketResources;
    readonly makeServer: NbdServerFactory;
    readonly onClosed: (client: NbdServerConnection, reason: string) => void;
  }) {
    const { pool, flushes } = options.resources;
    this.#onClosed = options.onClosed;
    this.connection = options.makeServer({
      setReading: (on) => this.#socket.setReading(on && this.#draining === null),
      finish: (reason) => this.#finish(reason),
      fail: (reason) => this.close(reason),
    });
    const { queue } = this.connection;
    this.#socket = new SlabSocket({
      fd: options.fd,
      pool,
      queue,
      flushes,
      user: this,
      peer: 'client',
      sendBufferBytes: SEND_BUFFER_BYTES,
    });
  }

  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    try {
      return this.connection.bytesReceived(slab, buffer, start, end);
    } catch (error) {
      this.close(productError(error).message);
      return true;
    }
  }

  linkLost(errno: string | null): void {
    this.close(
      errno === null ? 'the client closed the connection' : `the socket failed (${errno})`,
    );
  }

  sent(): void {
    if (this.#finishing !== null) this.close(this.#finishing);
    else this.connection.repliesSent();
  }

  /** Both directions end for the client at once; replies still queued are lost. */
  shutDown(): void {
    this.#socket.shutDown();
  }

  /** Takes no more requests, and ends the connection when what is answered has been sent. */
  drain(reason: string): void {
    if (this.#closed || this.#draining !== null) return;
    this.#draining = setTimeout(() => this.close(reason), DRAIN_MS_MAX);
    this.#socket.setReading(false);
    this.#finish(reason);
  }

  /** Ends the connection now. Requests under way end quietly. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#draining !== null) clearTimeout(this.#draining);
    this.connection.linkClosed();
    this.#socket.close();
    this.#onClosed(this, reason);
  }

  #finish(reason: string): void {
    this.#finishing = reason;
    if (this.connection.queue.isEmpty) this.close(reason);
  }
}
