import type { SlabPool } from '../../src/base/slab.js';
import type {
  BlockDevice,
  BlockRequest,
  BlockRequestOwner,
  ByteRange,
} from '../../src/bridge/block-device.js';
import { NbdConnection } from '../../src/bridge/nbd-connection.js';
import type { UnitBudget } from '../../src/bridge/unit-budget.js';

/** A disk that answers when the test says so. */
export class HeldDisk implements BlockDevice {
  readonly sizeBytes = 1 << 30;
  readonly blockSizeBytes = 512;
  readonly readOnly = false;
  readonly requests: BlockRequest[] = [];
  readonly gone: BlockRequestOwner[] = [];

  submit(request: BlockRequest): void {
    this.requests.push(request);
  }

  clientGone(owner: BlockRequestOwner): void {
    this.gone.push(owner);
  }

  done(errno: 'EIO' | null = null): BlockRequest {
    const request = this.requests.shift()!;
    request.done(errno);
    return request;
  }
}

/** "Request message": 28 bytes, then a write's payload. */
export function request(
  type: number,
  fields: {
    flags?: number;
    cookie?: bigint;
    offset?: bigint;
    length?: number;
    payload?: Buffer;
  } = {},
): Buffer {
  const header = Buffer.alloc(28);
  header.writeUInt32BE(0x25609513, 0);
  header.writeUInt16BE(fields.flags ?? 0, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(fields.cookie ?? 1n, 8);
  header.writeBigUInt64BE(fields.offset ?? 0n, 16);
  header.writeUInt32BE(fields.length ?? fields.payload?.length ?? 0, 24);
  return Buffer.concat([header, fields.payload ?? Buffer.alloc(0)]);
}

/** A client's socket: keeps a received slab as SlabSocket does, and what the server said. */
export class Peer {
  reading = true;
  finished: string | null = null;
  failed: string | null = null;
  readonly connection: NbdConnection;
  readonly pool: SlabPool;
  #slab: number;

  constructor(
    pool: SlabPool,
    budget: UnitBudget,
    device: BlockDevice,
    partitions?: () => readonly ByteRange[],
  ) {
    this.pool = pool;
    this.#slab = pool.acquire();
    this.connection = new NbdConnection({
      pool,
      disk: { device, budget, ...(partitions === undefined ? {} : { partitions }) },
      driver: {
        setReading: (on) => {
          this.reading = on;
        },
        finish: (reason) => {
          this.finished = reason;
        },
        fail: (reason) => {
          this.failed = reason;
          this.close();
        },
      },
    });
  }

  /** One receive of the socket: at most 1 MiB. */
  send(...parts: Buffer[]): boolean {
    const bytes = Buffer.concat(parts);
    this.pool.release(this.#slab);
    this.#slab = this.pool.acquire();
    const buffer = this.pool.buffer(this.#slab);
    bytes.copy(buffer);
    return this.connection.bytesReceived(this.#slab, buffer, 0, bytes.length);
  }

  /** All replies queued so far, as the socket takes them. */
  receive(): Buffer {
    const { queue } = this.connection;
    const pieces: Buffer[] = [];
    for (let index = 0; index < queue.count; index += 1) {
      const at = ((queue.firstIndex + index) % queue.capacity) * 3;
      const [slab, offset, length] = queue.table.subarray(at, at + 3) as unknown as number[];
      pieces.push(Buffer.from(this.pool.buffer(slab!).subarray(offset!, offset! + length!)));
    }
    const bytes = Buffer.concat(pieces);
    queue.sent(bytes.length);
    this.connection.repliesSent();
    return bytes;
  }

  /** Errors by cookie of the simple replies without data ("Simple reply message"). */
  errors(): [bigint, number][] {
    const bytes = this.receive();
    const replies: [bigint, number][] = [];
    for (let at = 0; at < bytes.length; at += 16) {
      if (bytes.readUInt32BE(at) !== 0x67446698) throw new Error('this is no simple reply');
      replies.push([bytes.readBigUInt64BE(at + 8), bytes.readUInt32BE(at + 4)]);
    }
    return replies;
  }

  close(): void {
    this.connection.linkClosed();
    if (this.#slab >= 0) this.pool.release(this.#slab);
    this.#slab = -1;
  }
}
