/**
 * Numbers and byte layouts of the NBD transmission phase, server side: requests are decoded and
 * replies encoded. The source is the NBD protocol document (proto.md), whose section titles are
 * cited. Every integer is big-endian. Encoders write into memory the caller has reserved, allocate
 * nothing and return the number of bytes written.
 */
import { type BlockErrno, ProductError } from '../base/errors.js';

/** The client broke the NBD protocol: its connection is closed. */
export class NbdProtocolError extends ProductError {
  /** Title of the broken section of the NBD protocol document. */
  readonly section: string;

  constructor(section: string, message: string, options?: ErrorOptions) {
    super('ERR_NBD_PROTOCOL', `${message} (NBD protocol, "${section}")`, options);
    this.section = section;
  }
}

/** "Request message", "Simple reply message", "Structured reply chunk message". */
const NBD_REQUEST_MAGIC = 0x25609513;
const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** "Request types". */
export const NBD_CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** "Command flags". */
export const NBD_CMD_FLAG = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  PAYLOAD_LEN: 1 << 5,
} as const;

const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;
/** Flags each command may carry ("Command flags"); others are refused with EINVAL. */
export const NBD_ALLOWED_FLAGS: Readonly<Record<number, number>> = {
  // Linux sets FUA on any command when the export has it; it means nothing on a read.
  [NBD_CMD.READ]: FUA | DF,
  [NBD_CMD.WRITE]: FUA,
  [NBD_CMD.FLUSH]: FUA,
  [NBD_CMD.TRIM]: FUA,
  [NBD_CMD.WRITE_ZEROES]: FUA | NO_HOLE | FAST_ZERO,
  [NBD_CMD.BLOCK_STATUS]: FUA | REQ_ONE,
};

/** "Transmission flags". */
export const NBD_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** "Error values". */
export const NBD_ERROR = {
  NONE: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const satisfies Record<BlockErrno | 'NONE' | 'EOVERFLOW', number>;

/** The error value that stands for `errno` in a reply. */
export function nbdErrorNumber(errno: BlockErrno): number {
  return NBD_ERROR[errno];
}

/** "Structured reply types"; error chunks have bit 15 set. */
export const NBD_REPLY_TYPE = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** "Structured reply flags". */
export const NBD_REPLY_FLAG = { DONE: 1 << 0 } as const;

/** "base:allocation metadata context": status flags of one extent. */
export const NBD_STATE = { HOLE: 1 << 0, ZERO: 1 << 1 } as const;

/** Sizes in bytes of the fixed layouts below. */
export const NBD_REQUEST_BYTES = 28;
export const NBD_SIMPLE_REPLY_BYTES = 16;
export const NBD_CHUNK_HEADER_BYTES = 20;
export const NBD_OFFSET_DATA_BYTES = NBD_CHUNK_HEADER_BYTES + 8;
export const NBD_BLOCK_STATUS_BYTES = NBD_CHUNK_HEADER_BYTES + 4;
export const NBD_BLOCK_DESCRIPTOR_BYTES = 8;
export const NBD_ERROR_CHUNK_BYTES = NBD_CHUNK_HEADER_BYTES + 6;

/** Bytes of an error message at most: "Conventions" says strings should not be longer. */
export const NBD_ERROR_MESSAGE_BYTES_MAX = 256;

const TWO_32 = 0x1_0000_0000;

/**
 * One request as it came; the object is used again for the next one.
 *
 * ```
 *  0 magic (4)  4 command flags (2)  6 type (2)  8 cookie (8)  16 offset (8)  24 length (4)
 * ```
 */
export class NbdRequestHeader {
  flags = 0;
  type = 0;
  /** The client's name for the request, returned in every reply to it, as two u32 halves. */
  cookieUpper = 0;
  cookieLower = 0;
  /** Byte offset in the export, as two u32 halves. */
  offsetUpper = 0;
  offsetLower = 0;
  /** Bytes the request is about; for WRITE also the bytes that follow the header. */
  length = 0;
  /** Set by the reader: a WRITE payload over its maximum; it is skipped and must be refused. */
  tooLong = false;

  /**
   * The offset as a number: exact below 2^53, and above that when it is a whole number of blocks
   * (which `offsetLower` tells).
   */
  get offsetBytes(): number {
    return this.offsetUpper * TWO_32 + this.offsetLower;
  }
}

/**
 * Decodes the 28 bytes at `at` into `into`. The type is not checked: an unknown command is answered
 * with EINVAL ("Error values"). False, and `into` unchanged, on a wrong magic.
 */
export function decodeRequest(view: DataView, at: number, into: NbdRequestHeader): boolean {
  if (view.getUint32(at) !== NBD_REQUEST_MAGIC) return false;
  into.flags = view.getUint16(at + 4);
  into.type = view.getUint16(at + 6);
  into.cookieUpper = view.getUint32(at + 8);
  into.cookieLower = view.getUint32(at + 12);
  into.offsetUpper = view.getUint32(at + 16);
  into.offsetLower = view.getUint32(at + 20);
  into.length = view.getUint32(at + 24);
  into.tooLong = false;
  return true;
}

/** Writes a non-negative integer `value` up to 2^63 as 64 bits; both halves are exact. */
export function writeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32));
  view.setUint32(at + 4, value % TWO_32);
}

/**
 * "Simple reply message": 0 magic (4), 4 error (4), 8 cookie (8); a READ's data follows when
 * `errorNumber` is 0.
 */
export function writeSimpleReply(
  view: DataView,
  at: number,
  errorNumber: number,
  cookieUpper: number,
  cookieLower: number,
): number {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, errorNumber);
  view.setUint32(at + 8, cookieUpper);
  view.setUint32(at + 12, cookieLower);
  return NBD_SIMPLE_REPLY_BYTES;
}

/**
 * "Structured reply chunk message": 0 magic (4), 4 flags (2), 6 type (2), 8 cookie (8),
 * 16 length of the payload (4).
 */
export function writeChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieUpper: number,
  cookieLower: number,
  payloadBytes: number,
): number {
  view.setUint32(at, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieUpper);
  view.setUint32(at + 12, cookieLower);
  view.setUint32(at + 16, payloadBytes);
  return NBD_CHUNK_HEADER_BYTES;
}

/** NBD_REPLY_TYPE_NONE, which is always the last chunk: success when no error chunk came before. */
export function writeNoneChunk(
  view: DataView,
  at: number,
  cookieUpper: number,
  cookieLower: number,
): number {
  const type = NBD_REPLY_TYPE.NONE;
  return writeChunkHeader(view, at, NBD_REPLY_FLAG.DONE, type, cookieUpper, cookieLower, 0);
}

/** NBD_REPLY_TYPE_OFFSET_DATA without its data: `dataBytes` (at least 1) bytes must follow. */
export function writeOffsetDataChunk(
  view: DataView,
  at: number,
  flags: number,
  cookieUpper: number,
  cookieLower: number,
  offsetBytes: number,
  dataBytes: number,
): number {
  const type = NBD_REPLY_TYPE.OFFSET_DATA;
  writeChunkHeader(view, at, flags, type, cookieUpper, cookieLower, 8 + dataBytes);
  writeUint64(view, at + 20, offsetBytes);
  return NBD_OFFSET_DATA_BYTES;
}

/**
 * NBD_REPLY_TYPE_BLOCK_STATUS up to its descriptors: `descriptorCount` (at least 1, at most 2^20)
 * of them must follow, each written by `writeBlockDescriptor`.
 */
export function writeBlockStatusChunk(
  view: DataView,
  at: number,
  flags: number,
  cookieUpper: number,
  cookieLower: number,
  contextId: number,
  descriptorCount: number,
): number {
  const payloadBytes = 4 + descriptorCount * NBD_BLOCK_DESCRIPTOR_BYTES;
  const type = NBD_REPLY_TYPE.BLOCK_STATUS;
  writeChunkHeader(view, at, flags, type, cookieUpper, cookieLower, payloadBytes);
  view.setUint32(at + 20, contextId);
  return NBD_BLOCK_STATUS_BYTES;
}

/** One extent of a block status: its length (at least 1) and `NBD_STATE` flags. */
export function writeBlockDescriptor(
  view: DataView,
  at: number,
  extentBytes: number,
  statusFlags: number,
): number {
  view.setUint32(at, extentBytes);
  view.setUint32(at + 4, statusFlags);
  return NBD_BLOCK_DESCRIPTOR_BYTES;
}

/**
 * NBD_REPLY_TYPE_ERROR. `message` is for a person and is cut at NBD_ERROR_MESSAGE_BYTES_MAX bytes
 * (never inside a character); the caller reserves that much more than NBD_ERROR_CHUNK_BYTES.
 */
export function writeErrorChunk(
  view: DataView,
  at: number,
  flags: number,
  cookieUpper: number,
  cookieLower: number,
  errorNumber: number,
  message = '',
): number {
  const messageAt = at + NBD_ERROR_CHUNK_BYTES;
  const room = Math.min(NBD_ERROR_MESSAGE_BYTES_MAX, view.byteLength - messageAt);
  const messageBytes = Buffer.from(view.buffer, view.byteOffset + messageAt, room).write(message);
  const type = NBD_REPLY_TYPE.ERROR;
  writeChunkHeader(view, at, flags, type, cookieUpper, cookieLower, 6 + messageBytes);
  view.setUint32(at + 20, errorNumber);
  view.setUint16(at + 24, messageBytes);
  return NBD_ERROR_CHUNK_BYTES + messageBytes;
}
