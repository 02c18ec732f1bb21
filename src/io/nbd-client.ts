import { ProductError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';
import type { BlockDevice } from '../bridge/block-device.js';
import type { Budget } from '../bridge/budget.js';
import { NbdConnection, type NbdExportCatalog } from '../bridge/nbd-connection.js';
import type { FlushList } from './flush-list.js';
import { PumpedSocket, type SocketUser } from './pumped-socket.js';

/** What every NBD connection of one session shares. */
export type NbdResources = {
  readonly pool: SlabPool;
  readonly flushes: FlushList;
  readonly budget: Budget;
};

/**
 * One NBD connection on a descriptor: a client of the unix socket, or the kernel's end of a
 * device. It ends when the client is gone, disconnects, or breaks the protocol.
 */
export class NbdClient implements SocketUser {
  readonly connection: NbdConnection;
  readonly #socket: PumpedSocket;
  readonly #onClosed: (client: NbdClient, reason: string) => void;
  #finishing: string | null = null;
  #closed = false;

  constructor(options: {
    readonly fd: number;
    readonly resources: NbdResources;
    readonly device?: BlockDevice;
    readonly catalog?: NbdExportCatalog;
    readonly onClosed: (client: NbdClient, reason: string) => void;
  }) {
    const { pool, budget, flushes } = options.resources;
    this.#onClosed = options.onClosed;
    this.connection = new NbdConnection({
      pool,
      budget,
      driver: {
        setReading: (on) => this.#socket.setReading(on),
        finish: (reason) => this.#finish(reason),
      },
      ...(options.device === undefined ? {} : { device: options.device }),
      ...(options.catalog === undefined ? {} : { catalog: options.catalog }),
    });
    const { queue } = this.connection;
    this.#socket = new PumpedSocket({ fd: options.fd, pool, queue, flushes, user: this });
  }

  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    try {
      return this.connection.bytesReceived(slab, buffer, start, end);
    } catch (error) {
      if (!(error instanceof ProductError) || error.code === 'ERR_INVARIANT') throw error;
      this.close(error.message);
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

  /** Ends the connection now. Requests under way end quietly. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.connection.linkClosed();
    this.#socket.close();
    this.#onClosed(this, reason);
  }

  #finish(reason: string): void {
    this.#finishing = reason;
    if (this.connection.queue.isEmpty) this.close(reason);
  }
}
