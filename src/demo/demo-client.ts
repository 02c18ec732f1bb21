import { type FileHandle, open } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { LinkError, ProductError } from '../base/errors.js';

/**
 * The demo as a user of the disk: it sees what any program sees, a block device or an NBD export,
 * and shares no code with the side that serves it.
 */
export interface DemoDisk {
  /** Resolves when the bytes are on the disk. */
  write(offsetBytes: number, bytes: Buffer): Promise<void>;
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** A kernel device. Requests wait in the thread pool, so that a held one delays no other. */
export class DeviceDisk implements DemoDisk {
  readonly #path: string;
  #file: FileHandle;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async open(path: string): Promise<DeviceDisk> {
    return new DeviceDisk(path, await openDevice(path));
  }

  async write(offsetBytes: number, bytes: Buffer): Promise<void> {
    const { bytesWritten } = await this.#file.write(bytes, 0, bytes.length, offsetBytes);
    if (bytesWritten !== bytes.length) throw shortTransfer('write', bytesWritten, bytes.length);
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const bytes = Buffer.alloc(lengthBytes);
    const { bytesRead } = await this.#file.read(bytes, 0, lengthBytes, offsetBytes);
    if (bytesRead !== lengthBytes) throw shortTransfer('read', bytesRead, lengthBytes);
    return bytes;
  }

  /** Opened anew, for the kernel forgets its cached pages with the last close. */
  async flush(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    this.#file = await openDevice(this.#path);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** `rs+` is O_SYNC: a write returns when the disk has it, and not when the page cache has. */
function openDevice(path: string): Promise<FileHandle> {
  return open(path, 'rs+');
}

function shortTransfer(what: string, got: number, wanted: number): ProductError {
  return new ProductError('ERR_DEMO_DISK', `a ${what} of ${wanted} bytes ended after ${got}`);
}

/** Numbers of the NBD protocol document: "Fixed newstyle negotiation", "Transmission". */
const INIT_MAGIC = 0x4e42444d41474943n;
const OPTION_MAGIC = 0x49484156454f5054n;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const OPTION_EXPORT_NAME = 1;
/** Fixed newstyle, and no 124 zeros after the export's size and flags. */
const CLIENT_FLAGS = 3;
const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;

type Waiter = { readonly resolve: () => void; readonly reject: (error: Error) => void };
type Request = Waiter & { readonly data: Buffer };

/** A client of an NBD export on a unix socket: simple replies, any number of requests at once. */
export class SocketDisk implements DemoDisk {
  readonly #socket: Socket;
  readonly #requests = new Map<bigint, Request>();
  #cookie = 0n;
  /** The bytes being waited for, how many have arrived, and the waiting caller. */
  #wanted: Buffer = Buffer.alloc(0);
  #filled = 0;
  #waiter: Waiter | null = null;
  #failure: Error | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.pause();
    socket.on('readable', () => this.#fill());
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new LinkError('ECONNRESET', 'the socket was closed')));
  }

  static async open(path: string): Promise<SocketDisk> {
    const disk = new SocketDisk(createConnection(path));
    await disk.#handshake();
    // Ends when the socket does; every request ends then.
    disk.#receiveReplies().catch((error: Error) => disk.#fail(error));
    return disk;
  }

  async write(offsetBytes: number, bytes: Buffer): Promise<void> {
    await this.#request('write', offsetBytes, bytes.length, bytes);
  }

  read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    return this.#request('read', offsetBytes, lengthBytes, null);
  }

  async flush(): Promise<void> {
    await this.#request('flush', 0, 0, null);
  }

  async close(): Promise<void> {
    if (this.#failure === null) this.#socket.write(this.#header('disconnect', 0, 0));
    this.#socket.destroySoon();
  }

  async #handshake(): Promise<void> {
    const greeting = await this.#take(18);
    const isNewstyle =
      greeting.readBigUInt64BE(0) === INIT_MAGIC && greeting.readBigUInt64BE(8) === OPTION_MAGIC;
    if (!isNewstyle) throw new ProductError('ERR_DEMO_NBD', 'the socket does not speak NBD');
    const answer = Buffer.alloc(20);
    answer.writeUInt32BE(CLIENT_FLAGS, 0);
    answer.writeBigUInt64BE(OPTION_MAGIC, 4);
    answer.writeUInt32BE(OPTION_EXPORT_NAME, 12);
    this.#socket.write(answer);
    // Size and transmission flags of the default export.
    await this.#take(10);
  }

  #request(
    command: 'read' | 'write' | 'flush',
    offsetBytes: number,
    lengthBytes: number,
    payload: Buffer | null,
  ): Promise<Buffer> {
    const data = command === 'read' ? Buffer.alloc(lengthBytes) : Buffer.alloc(0);
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) {
        reject(this.#failure);
        return;
      }
      const header = this.#header(command, offsetBytes, lengthBytes);
      this.#requests.set(this.#cookie, { data, resolve: () => resolve(data), reject });
      this.#socket.write(header);
      if (payload !== null) this.#socket.write(payload);
    });
  }

  #header(command: keyof typeof COMMAND, offsetBytes: number, lengthBytes: number): Buffer {
    this.#cookie += 1n;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(COMMAND[command], 6);
    header.writeBigUInt64BE(this.#cookie, 8);
    header.writeBigUInt64BE(BigInt(offsetBytes), 16);
    header.writeUInt32BE(lengthBytes, 24);
    return header;
  }

  async #receiveReplies(): Promise<void> {
    for (;;) {
      const reply = await this.#take(16);
      const cookie = reply.readBigUInt64BE(8);
      const request = this.#requests.get(cookie);
      if (reply.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC || request === undefined) {
        throw new ProductError('ERR_DEMO_NBD', 'a reply to no request');
      }
      const error = reply.readUInt32BE(4);
      if (error === 0 && request.data.length > 0) await this.#take(request.data);
      this.#requests.delete(cookie);
      if (error === 0) request.resolve();
      else request.reject(new ProductError('ERR_DEMO_DISK', `the disk answers error ${error}`));
    }
  }

  /** Fills `into`, or a new buffer of that length, with the next bytes of the socket. */
  async #take(into: Buffer | number): Promise<Buffer> {
    const wanted = typeof into === 'number' ? Buffer.alloc(into) : into;
    await new Promise<void>((resolve, reject) => {
      this.#wanted = wanted;
      this.#filled = 0;
      this.#waiter = { resolve, reject };
      if (this.#failure !== null) reject(this.#failure);
      else this.#fill();
    });
    return wanted;
  }

  #fill(): void {
    while (this.#waiter !== null) {
      const missing = this.#wanted.length - this.#filled;
      const piece: Buffer | null = this.#socket.read(
        Math.min(missing, this.#socket.readableLength),
      );
      if (piece === null) return;
      piece.copy(this.#wanted, this.#filled);
      this.#filled += piece.length;
      if (this.#filled < this.#wanted.length) continue;
      const { resolve } = this.#waiter;
      this.#waiter = null;
      resolve();
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#socket.destroy();
    this.#waiter?.reject(this.#failure);
    this.#waiter = null;
    for (const request of this.#requests.values()) request.reject(this.#failure);
    this.#requests.clear();
  }
}
