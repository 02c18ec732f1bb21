import { deferred } from '../base/deferred.js';
import { productError } from '../base/errors.js';
import type { SendQueue } from '../base/send-queue.js';
import type { SlabPool } from '../base/slab.js';
import type { SendBatch } from './send-batch.js';
import { SlabSocket, type SocketUser } from './slab-socket.js';

/** Room for a deep queue's read data: each reply then leaves at once, whole, in one call. */
const SEND_BUFFER_BYTES = 8 << 20;

/** How long replies that are queued may wait for a client that is to go. */
const DRAIN_MS_MAX = 1000;
/** How long a disk may take for what it was asked before its device is left to another process. */
const COMPLETE_MS_MAX = 1000;

const LEFT = 'the device is left to another process';

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
  /** No request is at the disk. */
  readonly isSettled: boolean;
  /** Told each time a request ends and no other is at the disk. */
  onSettled: (() => void) | null;
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
  /** While it completes what was asked: the next action. */
  #completing: 'requests' | 'replies' | 'end' | null = null;
  readonly #ended = deferred<void>();
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
      setReading: (on) => this.#socket.setReading(on && !this.#isDraining),
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

  get #isDraining(): boolean {
    return this.#draining !== null && this.#completing === null;
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
    if (errno === null && this.#completing === 'replies') {
      this.#completing = 'end';
      this.#settled();
      return;
    }
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

  /**
   * Ends the connection with no request on it, which the kernel sends again only after seconds:
   * replies wait until everything that has come is carried out, and are then sent at once; what the
   * kernel sends next fails there and waits for another process. Resolves when it has ended.
   */
  complete(): Promise<void> {
    if (this.#closed || this.#draining !== null) return this.#ended.promise;
    this.#draining = setTimeout(() => {
      this.#socket.sendHeld();
      this.close(LEFT);
    }, COMPLETE_MS_MAX);
    this.#completing = 'requests';
    this.#socket.holdSending();
    this.connection.onSettled = () => this.#settled();
    this.#settled();
    return this.#ended.promise;
  }

  /** Ends the connection now. Requests under way end quietly. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#draining !== null) clearTimeout(this.#draining);
    this.connection.linkClosed();
    this.#socket.close();
    this.#onClosed(this, reason);
    this.#ended.resolve();
  }

  #settled(): void {
    if (!this.connection.isSettled) return;
    if (this.#completing === 'requests') {
      this.#completing = 'replies';
      // With the first request that fails the kernel gives the link up: nothing may come between.
      this.#socket.endReceiving();
      this.#socket.sendHeld();
    } else if (this.#completing === 'end') {
      this.#finish(LEFT);
    }
  }

  #finish(reason: string): void {
    this.#finishing = reason;
    if (this.connection.queue.isEmpty) this.close(reason);
  }
}
