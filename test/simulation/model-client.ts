import type { Clock } from '../../src/base/clock.js';
import { NbdConnection } from '../../src/bridge/nbd-connection.js';
import type { ServedDisk } from '../../src/bridge/nbd-export.js';
import type { BatchedSender } from '../../src/io/send-batch.js';
import type { SessionResources } from '../../src/lun/runtime.js';
import type { Seeded } from './seeded.js';
import { SlabWindow } from './slab-window.js';
import { takeFrom } from './take-from.js';

/** NBD protocol, "Request types" and "Command flags". */
export const COMMAND = { read: 0, write: 1, flush: 3, trim: 4, writeZeroes: 6 } as const;
export const FLAG = { fua: 1, noHole: 2 } as const;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;
const REPLY_BYTES = 16;

export type ModelRequest = {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Bytes of a write. */
  readonly data?: Buffer;
};

export type ModelReply = { readonly error: number; readonly data: Buffer };

type Waiting = { readonly request: ModelRequest; readonly done: (reply: ModelReply) => void };

/**
 * A client of one export, with an encoder and a decoder of its own, over a socket that cuts the
 * bytes where the seed says. Every reply must belong to exactly one request.
 */
export class ModelClient implements BatchedSender {
  readonly connection: NbdConnection;
  readonly lun: number;
  readonly #resources: SessionResources;
  readonly #clock: Clock;
  readonly #random: Seeded;
  readonly #fault: (words: string) => void;
  readonly #window: SlabWindow;
  readonly #waiting = new Map<number, Waiting>();
  #cookie = 1;
  #toServer: Buffer = Buffer.alloc(0);
  #fromServer: Buffer = Buffer.alloc(0);
  #isReading = true;
  #deliveryDue = false;
  isOpen = true;
  /** The client calls it once, when its connection has ended: no reply arrives after that. */
  onClosed: () => void = () => undefined;

  constructor(options: {
    readonly resources: SessionResources;
    readonly disk: ServedDisk;
    readonly lun: number;
    readonly random: Seeded;
    readonly fault: (words: string) => void;
  }) {
    this.lun = options.lun;
    this.#resources = options.resources;
    this.#clock = options.resources.clock;
    this.#random = options.random;
    this.#fault = options.fault;
    const { pool, flushes } = options.resources;
    this.#window = new SlabWindow(pool);
    this.connection = new NbdConnection({
      pool,
      disk: options.disk,
      driver: {
        setReading: (on) => {
          this.#isReading = on;
          if (on) this.#window.used();
          if (on) this.#deliver();
        },
        finish: () => this.close(),
        fail: (reason) => this.#fault(`the server refuses the client: ${reason}`),
      },
    });
    this.connection.queue.onFirst = () => flushes.add(this);
  }

  get unanswered(): number {
    return this.#waiting.size;
  }

  send(request: ModelRequest, done: (reply: ModelReply) => void): void {
    this.#cookie += 1;
    const cookie = this.#cookie;
    this.#waiting.set(cookie, { request, done });
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(request.flags, 4);
    header.writeUInt16BE(request.command, 6);
    header.writeBigUInt64BE(BigInt(cookie), 8);
    header.writeBigUInt64BE(BigInt(request.offset), 16);
    header.writeUInt32BE(request.length, 24);
    this.#toServer = Buffer.concat([this.#toServer, header, request.data ?? Buffer.alloc(0)]);
    this.#deliver();
  }

  /** The client goes, at once; requests without a reply never get one. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.connection.linkClosed();
    this.connection.queue.onFirst = null;
    this.#window.close();
    this.onClosed();
  }

  /** The server's process has ended: the socket is gone, and no client gets a reply. */
  serverDied(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.connection.queue.onFirst = null;
    this.onClosed();
  }

  /** Replies queued by the server, taken at once. */
  flush(): void {
    if (!this.isOpen) return;
    const { queue } = this.connection;
    const bytes = takeFrom(queue, this.#resources.pool, queue.byteLength);
    this.#fromServer = Buffer.concat([this.#fromServer, bytes]);
    this.#readReplies();
    if (this.isOpen) this.connection.repliesSent();
  }

  #deliver(): void {
    if (this.#deliveryDue || !this.#isReading || this.#toServer.length === 0) return;
    this.#deliveryDue = true;
    this.#clock.at(this.#clock.nowMs(), () => {
      this.#deliveryDue = false;
      if (!this.isOpen || !this.#isReading) return;
      const whole = Math.min(this.#toServer.length, this.#window.room);
      const length = this.#random.chance(0.2) ? this.#random.whole(1, whole) : whole;
      const bytes = this.#toServer.subarray(0, length);
      this.#toServer = this.#toServer.subarray(length);
      const { flushes } = this.#resources;
      flushes.begin();
      const isUsed = this.#window.receive(bytes, (slab, buffer, start, end) =>
        this.connection.bytesReceived(slab, buffer, start, end),
      );
      if (isUsed && this.isOpen) this.#window.used();
      flushes.end();
      this.#deliver();
    });
  }

  #readReplies(): void {
    while (this.#fromServer.length >= REPLY_BYTES) {
      const bytes = this.#fromServer;
      if (bytes.readUInt32BE(0) !== REPLY_MAGIC) {
        this.#fault('a reply without its magic');
        return;
      }
      const error = bytes.readUInt32BE(4);
      const cookie = Number(bytes.readBigUInt64BE(8));
      const waiting = this.#waiting.get(cookie);
      if (waiting === undefined) {
        this.#fault(`a reply nobody waits for (cookie ${cookie}): twice, or never asked for`);
        return;
      }
      const { request } = waiting;
      const dataBytes = request.command === COMMAND.read && error === 0 ? request.length : 0;
      if (bytes.length < REPLY_BYTES + dataBytes) return;
      const data = Buffer.from(bytes.subarray(REPLY_BYTES, REPLY_BYTES + dataBytes));
      this.#fromServer = bytes.subarray(REPLY_BYTES + dataBytes);
      this.#waiting.delete(cookie);
      waiting.done({ error, data });
    }
  }
}
