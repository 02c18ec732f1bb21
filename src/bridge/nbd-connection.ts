import type { BlockErrno } from '../base/errors.js';
import { SendQueue } from '../base/send-queue.js';
import type { SlabPool } from '../base/slab.js';
import { NbdHandshake } from '../nbd/handshake.js';
import { NBD_READ_STEP, NbdRequestReader } from '../nbd/request-reader.js';
import {
  NBD_ALLOWED_FLAGS,
  NBD_CMD,
  NBD_CMD_FLAG,
  NbdProtocolError,
  type NbdRequestHeader,
} from '../nbd/wire.js';
import {
  type BlockDevice,
  BlockRequest,
  type BlockRequestOwner,
  type ByteRange,
} from './block-device.js';
import { NBD_PAYLOAD_BYTES_MAX, type NbdExportCatalog, type ServedDisk } from './nbd-export.js';
import { sendSimpleReply, sendStructuredReply } from './nbd-replies.js';
import { ReplyShare } from './reply-share.js';
import type { UnitBudget } from './unit-budget.js';

/** Requests one client may have under way; the kernel has 128 tags a queue. */
const CLIENT_REQUESTS_MAX = 1024;
/** Bytes of replies that wait for a client that does not read; beyond it the client is not read. */
const UNSENT_BYTES_MAX = 32 << 20;

/** Offsets are exact numbers while their upper half is below this. */
const EXACT_UPPER_MAX = 2 ** 21;

/** Answers of the handshake are queued in pieces that fit into a slab. */
const OUTPUT_PIECE_BYTES = 64 << 10;

const { FUA, NO_HOLE, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;

/** What the driver of the socket does for the connection. */
interface NbdConnectionDriver {
  /** Stop or go on calling `bytesReceived`. */
  setReading(on: boolean): void;
  /** No more requests will come and every reply is queued: close when the queue is empty. */
  finish(reason: string): void;
  /** The client broke the protocol: close now. */
  fail(reason: string): void;
}

/**
 * The server's end of one NBD connection: handshake (unless the kernel is the client), requests,
 * replies. Replies are made when the disk answers, in the disk's order, each exactly once.
 */
export class NbdConnection implements BlockRequestOwner {
  readonly queue: SendQueue;
  readonly #pool: SlabPool;
  readonly #driver: NbdConnectionDriver;
  readonly #reader = new NbdRequestReader(NBD_PAYLOAD_BYTES_MAX);
  readonly #catalog: NbdExportCatalog | null;
  readonly #handshake: NbdHandshake | null;
  #device: BlockDevice | null = null;
  #budget: UnitBudget | null = null;
  #structured = false;
  #contextId = -1;
  #current: BlockRequest | null = null;
  #currentErrno: BlockErrno | null = null;
  readonly #idle: BlockRequest[] = [];
  readonly #made: BlockRequest[] = [];
  /** Not read until there is room; the reader then goes on with the bytes it was fed. */
  #parked = false;
  #replies: ReplyShare | null = null;
  /** The current request is complete, and a read that waits until there is room for its reply. */
  #isReadHeld = false;
  readonly #roomFound = () => this.#goOn();
  isGone = false;
  partitions: (() => readonly ByteRange[]) | undefined;
  #isFinishing = false;
  /** Requests under way. */
  requests = 0;
  /** Told each time a request ends and no other is at the disk. */
  onSettled: (() => void) | null = null;
  exportName = '';

  constructor(options: {
    readonly pool: SlabPool;
    readonly driver: NbdConnectionDriver;
    /** When the kernel is the client: there is no handshake. */
    readonly disk?: ServedDisk;
    readonly catalog?: NbdExportCatalog;
  }) {
    this.#pool = options.pool;
    this.#driver = options.driver;
    this.#catalog = options.catalog ?? null;
    this.queue = new SendQueue(options.pool);
    const catalog = this.#catalog;
    if (options.disk !== undefined || catalog === null) {
      this.#handshake = null;
      if (options.disk !== undefined) this.#use(options.disk);
      return;
    }
    this.#handshake = new NbdHandshake({
      list: () => catalog.list().map((entry) => entry.info),
      find: (name) => catalog.find(name)?.info ?? null,
    });
    this.queue.pushCopy(this.#handshake.greeting());
  }

  /** No request is at the disk; one may be on its way to us, or wait for room for its reply. */
  get isSettled(): boolean {
    return this.requests === (this.#current === null ? 0 : 1);
  }

  get isHandshaking(): boolean {
    return this.#device === null;
  }

  /**
   * Takes bytes `start…end` of slab `slab`. Returns true when all are used; false when the client
   * has to wait, and then the bytes must stay where they are until `setReading(true)`.
   */
  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    if (this.#isFinishing) return true;
    let at = start;
    if (this.#device === null) {
      at += this.#handshakeReceived(buffer.subarray(start, end));
      if (this.#device === null) return true;
    }
    this.#reader.feed(slab, buffer, at, end);
    return this.#readRequests();
  }

  /** The socket has taken replies: a client that did not read them may go on. */
  repliesSent(): void {
    this.#replies?.queued(this.queue.byteLength);
    this.#goOn();
  }

  /** The client is gone; requests under way end quietly, those that are only held at once. */
  linkClosed(): void {
    if (this.isGone) return;
    this.isGone = true;
    this.queue.clear();
    this.#replies?.clientGone();
    this.#budget?.forget(this.#roomFound);
    const current = this.#current;
    this.#current = null;
    const idle = new Set(this.#idle);
    const underWay = this.#made.filter((each) => each !== current && !idle.has(each));
    this.#device?.clientGone(this, underWay);
    if (current !== null) this.#recycle(current);
  }

  blockRequestDone(request: BlockRequest): void {
    this.#replies?.ended(request);
    if (!this.isGone) {
      if (this.#structured) sendStructuredReply(this.queue, request, this.#contextId);
      else sendSimpleReply(this.queue, request);
      this.#replies?.queued(this.queue.byteLength);
      if (request.errno !== null) this.#device?.requestFailed?.(request);
    }
    if (this.isGone) this.#device?.abandonedRequestDone?.(request);
    this.#recycle(request);
    // Of a read that failed, or whose client is gone, there is no reply to wait for.
    if (request.operation === 'read') this.#budget?.session.replied();
    if (this.isGone) return;
    if (this.isSettled) this.onSettled?.();
    if (this.#isFinishing) {
      if (this.requests === 0) this.#driver.finish('the client disconnected');
    } else if (this.#parked) {
      this.#goOn();
    }
  }

  #handshakeReceived(bytes: Buffer): number {
    const handshake = this.#handshake;
    if (handshake === null) return 0;
    const used = handshake.bytesReceived(bytes);
    for (let out = handshake.takeOutput(); out !== null; out = handshake.takeOutput()) {
      for (let at = 0; at < out.length; at += OUTPUT_PIECE_BYTES) {
        this.queue.pushCopy(out.subarray(at, at + OUTPUT_PIECE_BYTES));
      }
    }
    if (handshake.state === 'closed') {
      this.#isFinishing = true;
      this.#driver.finish(handshake.closeReason ?? 'the handshake ended');
      return bytes.length;
    }
    const { result } = handshake;
    if (result === null) return used;
    const found = this.#catalog?.find(result.exportName);
    if (!found) {
      this.#isFinishing = true;
      this.#driver.finish('the export has gone');
      return bytes.length;
    }
    this.#use(found);
    this.exportName = found.info.name;
    this.#structured = result.structuredReplies;
    this.#contextId = result.metaContexts[0]?.id ?? -1;
    return used;
  }

  #use({ device, budget, partitions }: ServedDisk): void {
    this.#device = device;
    this.#budget = budget;
    this.#replies = new ReplyShare(budget.session, this.#roomFound);
    this.partitions = partitions;
    device.clientCame?.(this);
  }

  /** True when everything fed has been used. */
  #readRequests(): boolean {
    const reader = this.#reader;
    if (this.#isReadHeld && !this.#end()) return false;
    for (;;) {
      if (this.#current === null && !this.#mayRead()) {
        this.#park();
        return false;
      }
      switch (reader.next()) {
        case NBD_READ_STEP.NEED:
          return true;
        case NBD_READ_STEP.REQUEST:
          this.#begin(reader.header);
          break;
        case NBD_READ_STEP.PAYLOAD:
          this.#payloadReceived(reader);
          break;
        default:
          if (!this.#end()) return false;
          if (this.#isFinishing) return true;
      }
    }
  }

  #mayRead(): boolean {
    return (
      this.#budget?.hasRoom === true &&
      this.requests < CLIENT_REQUESTS_MAX &&
      this.queue.byteLength < UNSENT_BYTES_MAX
    );
  }

  #stopReading(): void {
    this.#parked = true;
    this.#driver.setReading(false);
  }

  #park(): void {
    this.#stopReading();
    // The client's own requests and replies wake it by themselves; room in the budget does not.
    this.#waitForRoom();
  }

  #waitForRoom(): void {
    if (this.#budget?.hasRoom === false) this.#budget.whenRoom(this.#roomFound);
  }

  /** Something that may have parked the client has changed. */
  #goOn(): void {
    if (!this.#parked || this.isGone) return;
    if (!this.#isReadHeld && !this.#mayRead()) {
      this.#waitForRoom();
      return;
    }
    this.#parked = false;
    try {
      if (this.#readRequests()) this.#driver.setReading(true);
    } catch (error) {
      // Whose turn this is has nothing to do with this client: its mistake ends here.
      if (!(error instanceof NbdProtocolError)) throw error;
      this.#isFinishing = true;
      this.#driver.fail(error.message);
    }
  }

  #begin(header: NbdRequestHeader): void {
    if (header.type === NBD_CMD.DISC) return;
    const request = this.#idle.pop() ?? this.#make();
    request.cookieUpper = header.cookieUpper;
    request.cookieLower = header.cookieLower;
    request.offsetBytes = header.offsetBytes;
    request.lengthBytes = header.length;
    request.fua = (header.flags & FUA) !== 0;
    request.noHole = (header.flags & NO_HOLE) !== 0;
    request.fastZero = (header.flags & FAST_ZERO) !== 0;
    request.oneExtent = (header.flags & REQ_ONE) !== 0;
    request.extents = null;
    // What is to be written counts as it comes: a client may say much, and send nothing.
    const isRead = header.type === NBD_CMD.READ && !header.tooLong;
    request.budgetBytes = isRead ? header.length : 0;
    this.#budget?.take(request.budgetBytes);
    this.requests += 1;
    this.#current = request;
    this.#currentErrno = this.#refusal(header, request);
  }

  /** Sets the operation; an errno when the request cannot be what the client meant. */
  #refusal(header: NbdRequestHeader, request: BlockRequest): BlockErrno | null {
    request.operation = 'flush';
    const allowed = NBD_ALLOWED_FLAGS[header.type];
    switch (header.type) {
      case NBD_CMD.READ:
        request.operation = 'read';
        break;
      case NBD_CMD.WRITE:
        request.operation = 'write';
        break;
      case NBD_CMD.FLUSH:
        request.offsetBytes = 0;
        request.lengthBytes = 0;
        break;
      case NBD_CMD.TRIM:
        request.operation = 'trim';
        break;
      case NBD_CMD.WRITE_ZEROES:
        request.operation = 'writeZeroes';
        break;
      case NBD_CMD.BLOCK_STATUS:
        request.operation = 'blockStatus';
        if (this.#contextId < 0) return 'EINVAL';
        break;
    }
    if (allowed === undefined || (header.flags & ~allowed) !== 0 || header.tooLong) return 'EINVAL';
    if (header.type === NBD_CMD.READ && header.length > NBD_PAYLOAD_BYTES_MAX) return 'EINVAL';
    return header.offsetUpper < EXACT_UPPER_MAX ? null : this.#refusalFarOut(header);
  }

  /** Beyond 2^53 a number may round an offset inside a block to one at its beginning. */
  #refusalFarOut({ offsetLower, type }: NbdRequestHeader): BlockErrno | null {
    const blockSizeBytes = this.#device?.blockSizeBytes ?? 1;
    return type !== NBD_CMD.FLUSH && offsetLower % blockSizeBytes !== 0 ? 'EINVAL' : null;
  }

  #payloadReceived({ slab, fragmentOffset, fragmentLength }: NbdRequestReader): void {
    const request = this.#current;
    if (request === null) return;
    request.data.append(slab, fragmentOffset, fragmentLength);
    request.budgetBytes += fragmentLength;
    this.#budget?.grow(fragmentLength);
  }

  /** The request is complete; false if it is a read for whose reply there is no room: it waits. */
  #end(): boolean {
    const request = this.#current;
    const errno = this.#currentErrno;
    if (request?.operation === 'read' && errno === null) {
      this.#isReadHeld = this.#replies?.take(request) === false;
      if (this.#isReadHeld) {
        this.#stopReading();
        return false;
      }
    }
    this.#current = null;
    if (request === null) {
      this.#disconnectReceived();
    } else if (errno !== null) {
      request.done(errno, 'the request is not one this server knows');
    } else {
      this.#device?.submit(request);
    }
    return true;
  }

  /** NBD_CMD_DISC: no reply; what is under way is finished first. */
  #disconnectReceived(): void {
    this.#isFinishing = true;
    if (this.requests === 0) this.#driver.finish('the client disconnected');
  }

  #make(): BlockRequest {
    if (this.#made.length > CLIENT_REQUESTS_MAX) {
      throw new NbdProtocolError('Terminating', 'more requests than a client may have');
    }
    const request = new BlockRequest(this, this.#pool);
    this.#made.push(request);
    return request;
  }

  #recycle(request: BlockRequest): void {
    if (request.data.count > 0) request.data.clear();
    this.requests -= 1;
    this.#idle.push(request);
    this.#budget?.give(request.budgetBytes);
  }
}
