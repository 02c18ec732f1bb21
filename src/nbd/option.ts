/**
 * Numbers and byte layouts of option haggling (NBD protocol document, "Fixed newstyle negotiation",
 * "Option types", "Option reply types"), server side: option data is parsed, replies are encoded.
 */
import { viewOf } from '../base/view.js';
import { writeUint64 } from './wire.js';

/** ASCII "NBDMAGIC" and "IHAVEOPT" ("Newstyle negotiation"), and the magic of option replies. */
export const NBD_MAGIC = Buffer.from('4e42444d41474943', 'hex');
export const NBD_OPTION_MAGIC = Buffer.from('49484156454f5054', 'hex');
const OPTION_REPLY_MAGIC = Buffer.from('0003e889045565a9', 'hex');

/** "Handshake flags" and, with the same bits, "Client flags". */
export const NBD_HANDSHAKE_FLAG = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

/** "Option types" that are answered with more than NBD_REP_ERR_UNSUP. */
export const NBD_OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

/** "Option reply types"; errors have bit 31 set. */
export const NBD_REP = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_INVALID: 0x8000_0003,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_TOO_BIG: 0x8000_0009,
} as const;

/** Information types of NBD_REP_INFO. */
export const NBD_INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Strings are no longer than this ("Conventions"). */
const NBD_STRING_BYTES_MAX = 4096;

/** Magic (8), option (4), length of the data (4). */
export const NBD_OPTION_HEADER_BYTES = 16;

/** What a client learns of one export. */
export interface NbdExportInfo {
  /** At most 4096 bytes of UTF-8. */
  readonly name: string;
  /** For a person; may be empty, at most 4096 bytes of UTF-8. */
  readonly description: string;
  readonly sizeBytes: number;
  /** `NBD_FLAG` bits. */
  readonly transmissionFlags: number;
  /** Powers of two within "Size constraints"; the maximum is that of a request's payload. */
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly maximumBlockBytes: number;
  /** The export answers NBD_CMD_BLOCK_STATUS in the context base:allocation. */
  readonly blockStatus: boolean;
}

/** One option reply, the unit the client reads. */
export function encodeOptionReply(option: number, type: number, data: Uint8Array): Buffer {
  const reply = Buffer.alloc(20 + data.length);
  OPTION_REPLY_MAGIC.copy(reply, 0);
  reply.writeUInt32BE(option, 8);
  reply.writeUInt32BE(type, 12);
  reply.writeUInt32BE(data.length, 16);
  reply.set(data, 20);
  return reply;
}

/** Data of NBD_REP_SERVER: 0 length of the name (4), 4 the name, then a description. */
export function encodeServer(info: NbdExportInfo): Buffer {
  const name = Buffer.from(info.name, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length, 0);
  return Buffer.concat([length, name, Buffer.from(info.description, 'utf8')]);
}

/** Data of NBD_REP_META_CONTEXT: 0 context id (4), 4 the name. */
export function encodeMetaContext(contextId: number, name: string): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(contextId, 0);
  return Buffer.concat([data, Buffer.from(name, 'utf8')]);
}

/** Data of NBD_INFO_EXPORT: 0 type (2), 2 size in bytes (8), 10 transmission flags (2). */
export function encodeInfoExport(sizeBytes: number, transmissionFlags: number): Buffer {
  const data = Buffer.alloc(12);
  data.writeUInt16BE(NBD_INFO.EXPORT, 0);
  writeUint64(viewOf(data), 2, sizeBytes);
  data.writeUInt16BE(transmissionFlags, 10);
  return data;
}

/** Data of NBD_INFO_NAME or NBD_INFO_DESCRIPTION: 0 type (2), 2 the text. */
export function encodeInfoText(type: number, text: string): Buffer {
  const data = Buffer.alloc(2);
  data.writeUInt16BE(type, 0);
  return Buffer.concat([data, Buffer.from(text, 'utf8')]);
}

/** Data of NBD_INFO_BLOCK_SIZE: 0 type (2), 2 minimum (4), 6 preferred (4), 10 maximum (4). */
export function encodeInfoBlockSize(info: NbdExportInfo): Buffer {
  const data = Buffer.alloc(14);
  data.writeUInt16BE(NBD_INFO.BLOCK_SIZE, 0);
  data.writeUInt32BE(info.minimumBlockBytes, 2);
  data.writeUInt32BE(info.preferredBlockBytes, 6);
  data.writeUInt32BE(info.maximumBlockBytes, 10);
  return data;
}

/** Reply to NBD_OPT_EXPORT_NAME: 0 size (8), 8 flags (2), and 124 zeros for clients of old. */
export function encodeExportNameReply(
  info: NbdExportInfo,
  transmissionFlags: number,
  noZeroes: boolean,
): Buffer {
  const reply = Buffer.alloc(noZeroes ? 10 : 134);
  writeUint64(viewOf(reply), 0, info.sizeBytes);
  reply.writeUInt16BE(transmissionFlags, 8);
  return reply;
}

/** `ignoreBOM` keeps a leading U+FEFF: it is a part of a name like any other character. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** An export name as a client sent it; null when it is no string as "Conventions" defines them. */
export function parseName(bytes: Uint8Array): string | null {
  if (bytes.length > NBD_STRING_BYTES_MAX || bytes.includes(0)) return null;
  try {
    return UTF8.decode(bytes);
  } catch {
    return null;
  }
}

type NbdInfoRequest = { readonly name: string; readonly wanted: ReadonlySet<number> };

/**
 * Data of NBD_OPT_INFO and NBD_OPT_GO: 0 length of the name (4), 4 the name, then the number of
 * information requests (2) and each of them (2). Null when anything does not fit exactly.
 */
export function parseInfoRequest(data: Buffer): NbdInfoRequest | null {
  if (data.length < 6) return null;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 6) return null;
  const name = parseName(data.subarray(4, 4 + nameBytes));
  const count = data.readUInt16BE(4 + nameBytes);
  if (name === null || data.length !== 6 + nameBytes + count * 2) return null;
  const wanted = new Set<number>();
  for (let at = 6 + nameBytes; at < data.length; at += 2) wanted.add(data.readUInt16BE(at));
  return { name, wanted };
}

type NbdMetaContextRequest = {
  readonly name: string;
  /** Each query byte for byte (latin1): one in an unknown namespace need not be understood. */
  readonly queries: readonly string[];
};

/**
 * Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: 0 length of the export name (4),
 * 4 the name, then the number of queries (4) and each as length (4) and text. Null when anything
 * does not fit exactly.
 */
export function parseMetaContextRequest(data: Buffer): NbdMetaContextRequest | null {
  if (data.length < 8) return null;
  const nameBytes = data.readUInt32BE(0);
  if (nameBytes > data.length - 8) return null;
  const name = parseName(data.subarray(4, 4 + nameBytes));
  if (name === null) return null;
  const count = data.readUInt32BE(4 + nameBytes);
  let at = 8 + nameBytes;
  const queries: string[] = [];
  for (let index = 0; index < count; index += 1) {
    // A query takes four bytes at least, so a count that lies ends the loop here.
    if (data.length - at < 4) return null;
    const queryBytes = data.readUInt32BE(at);
    at += 4;
    if (queryBytes > Math.min(data.length - at, NBD_STRING_BYTES_MAX)) return null;
    queries.push(data.toString('latin1', at, at + queryBytes));
    at += queryBytes;
  }
  return at === data.length ? { name, queries } : null;
}
