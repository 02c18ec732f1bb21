import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** NBD protocol, "Request types" and "Command flags". */
export const NBD = { read: 0, write: 1, flush: 3, trim: 4, writeZeroes: 6 } as const;
export const NBD_FLAGS = { fua: 1, noHole: 2, fastZero: 16 } as const;

export type RawReply = { readonly error: number; readonly data: Buffer };

type Waiting = { readonly length: number; readonly done: (reply: RawReply) => void };

/** A client of the default export on a unix socket: simple replies, a codec of its own. */
export class RawNbd {
  readonly #socket: Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #bytes: Buffer = Buffer.alloc(0);
  #pieces: Buffer[] = [];
  #piecesBytes = 0;
  #wanted = 16;
  #cookie = 0n;
  sizeBytes = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async open(path: string): Promise<RawNbd> {
    const socket = connect(path);
    const client = new RawNbd(socket);
    await once(socket, 'connect');
    // An error comes before the close, which is what counts.
    socket.on('error', () => undefined);
    const greeting = await client.#take(18);
    if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('no NBD');
    const option = Buffer.alloc(20);
    option.writeUInt32BE(3, 0);
    option.write('IHAVEOPT', 4);
    option.writeUInt32BE(1, 12);
    socket.write(option);
    client.sizeBytes = Number((await client.#take(10)).readBigUInt64BE(0));
    socket.on('data', (bytes) => client.#received(bytes));
    socket.on('close', () => client.#closed());
    return client;
  }

  /** One request; rejects when the connection goes before its reply. */
  request(
    type: number,
    fields: { flags?: number; offset?: number; length?: number; data?: Buffer } = {},
  ): Promise<RawReply> {
    const { flags = 0, offset = 0, data } = fields;
    const length = fields.length ?? data?.length ?? 0;
    this.#cookie += 1n;
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(type, 6);
    header.writeBigUInt64BE(this.#cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    const expected = type === NBD.read ? length : 0;
    const cookie = this.#cookie;
    return new Promise((done) => {
      this.#waiting.set(cookie, { length: expected, done });
      this.#socket.write(header);
      if (data !== undefined) this.#socket.write(data);
    });
  }

  /** Takes no replies for now. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) {
      const closed = once(this.#socket, 'close').then(() => {
        throw new Error('the server has closed the connection');
      });
      const [bytes] = (await Promise.race([once(this.#socket, 'data'), closed])) as [Buffer];
      this.#bytes = Buffer.concat([this.#bytes, bytes]);
    }
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }

  #received(bytes: Buffer): void {
    this.#pieces.push(bytes);
    this.#piecesBytes += bytes.length;
    if (this.#piecesBytes < this.#wanted) return;
    let all = Buffer.concat(this.#pieces);
    for (;;) {
      this.#wanted = 16;
      if (all.length < 16) break;
      const cookie = all.readBigUInt64BE(8);
      const waiting = this.#waiting.get(cookie);
      if (all.readUInt32BE(0) !== 0x67446698 || waiting === undefined) {
        throw new Error(`a reply to nothing: ${all.toString('hex', 0, 16)}`);
      }
      const error = all.readUInt32BE(4);
      const length = error === 0 ? waiting.length : 0;
      this.#wanted = 16 + length;
      if (all.length < this.#wanted) break;
      this.#waiting.delete(cookie);
      waiting.done({ error, data: all.subarray(16, 16 + length) });
      all = all.subarray(16 + length);
    }
    this.#pieces = [all];
    this.#piecesBytes = all.length;
  }

  #closed(): void {
    for (const { done } of this.#waiting.values()) done({ error: -1, data: Buffer.alloc(0) });
    this.#waiting.clear();
  }
}
