/**
 * The server's side of the fixed newstyle handshake (NBD protocol document, "Handshake"). Bytes go
 * in, bytes come out; the caller moves them and closes the connection.
 */
import {
  encodeExportNameReply,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeOptionReply,
  encodeServer,
  NBD_HANDSHAKE_FLAG,
  NBD_INFO,
  NBD_MAGIC,
  NBD_OPT,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_MAGIC,
  NBD_REP,
  type NbdExportInfo,
  parseInfoRequest,
  parseMetaContextRequest,
  parseName,
} from './option.js';
import { NBD_FLAG } from './wire.js';

/** The exports of a server, asked anew at every option. */
export interface NbdExportCatalog {
  list(): readonly NbdExportInfo[];
  /** The export of that name; the empty name is the default export, when there is one. */
  find(name: string): NbdExportInfo | null;
}

type NbdMetaContext = { readonly name: string; readonly id: number };

/** What client and server agreed on. */
export interface NbdHandshakeResult {
  /** As the client wrote it; `export.name` is the canonical name. */
  readonly exportName: string;
  readonly export: NbdExportInfo;
  /** The flags that were sent to the client, which may be fewer than the export's. */
  readonly transmissionFlags: number;
  readonly structuredReplies: boolean;
  readonly metaContexts: readonly NbdMetaContext[];
  readonly noZeroes: boolean;
}

/** Option data that is kept: names and queries of 4096 bytes each, and some more. */
const OPTION_BYTES_MAX = 64 << 10;
/** Option data that is skipped; beyond it the client means no good. */
const SKIPPED_OPTION_BYTES_MAX = 1 << 20;
/** Enough to ask three questions about each of 256 LUNs. */
const OPTIONS_MAX = 1024;
/** Replies waiting to be taken; a client that sends options into them does not read its replies. */
const OUTPUT_BYTES_MAX = 1 << 20;

const HANDSHAKE_FLAGS = NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE | NBD_HANDSHAKE_FLAG.NO_ZEROES;
const ALLOCATION_CONTEXT = 'base:allocation';
/** Any number would do: the client takes it as opaque (NBD_OPT_SET_META_CONTEXT). */
const ALLOCATION_CONTEXT_ID = 1;
const NOTHING = Buffer.alloc(0);

type Step =
  | { readonly kind: 'clientFlags'; readonly memory: Buffer; filled: number }
  | { readonly kind: 'optionHeader'; readonly memory: Buffer; filled: number }
  | {
      readonly kind: 'optionData';
      readonly option: number;
      readonly memory: Buffer;
      filled: number;
    }
  | { readonly kind: 'skippedData'; readonly option: number; left: number }
  | { readonly kind: 'transmission'; readonly result: NbdHandshakeResult }
  | { readonly kind: 'closed'; readonly reason: string };

/** Contexts selected by the last NBD_OPT_SET_META_CONTEXT, for the export it named. */
type Selection = { readonly exportName: string; readonly contexts: readonly NbdMetaContext[] };
const NO_SELECTION: Selection = { exportName: '', contexts: [] };

export class NbdHandshake {
  readonly #catalog: NbdExportCatalog;
  #step: Step = { kind: 'clientFlags', memory: Buffer.alloc(4), filled: 0 };
  #clientFlags = 0;
  #options = 0;
  #structuredReplies = false;
  #selection = NO_SELECTION;
  #output: Buffer[] = [];
  #outputBytes = 0;

  constructor(catalog: NbdExportCatalog) {
    this.#catalog = catalog;
  }

  /** `transmission`: `result` is set and requests follow. `closed`: send the output, close. */
  get state(): 'handshaking' | 'transmission' | 'closed' {
    const kind = this.#step.kind;
    return kind === 'transmission' || kind === 'closed' ? kind : 'handshaking';
  }

  get result(): NbdHandshakeResult | null {
    return this.#step.kind === 'transmission' ? this.#step.result : null;
  }

  /** Why the state is `closed`, for the log; null before. Carries none of the client's bytes. */
  get closeReason(): string | null {
    return this.#step.kind === 'closed' ? this.#step.reason : null;
  }

  /** What the server sends first: both magics and the handshake flags. */
  greeting(): Buffer {
    const flags = Buffer.alloc(2);
    flags.writeUInt16BE(HANDSHAKE_FLAGS, 0);
    return Buffer.concat([NBD_MAGIC, NBD_OPTION_MAGIC, flags]);
  }

  /**
   * Takes bytes from the client and returns how many it used. Fewer than given means that the state
   * is `transmission` and the rest are requests; once `closed`, all bytes are dropped. Never throws
   * for what the client sends.
   */
  bytesReceived(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      const step = this.#step;
      if (step.kind === 'transmission') return at;
      if (step.kind === 'closed') return bytes.length;
      if (step.kind === 'skippedData') {
        const take = Math.min(step.left, bytes.length - at);
        at += take;
        step.left -= take;
        if (step.left === 0) this.#dataSkipped(step.option);
        continue;
      }
      const take = Math.min(step.memory.length - step.filled, bytes.length - at);
      step.memory.set(bytes.subarray(at, at + take), step.filled);
      at += take;
      step.filled += take;
      if (step.filled < step.memory.length) continue;
      if (step.kind === 'clientFlags') this.#clientFlagsReceived(step.memory.readUInt32BE(0));
      else if (step.kind === 'optionHeader') this.#headerReceived(step.memory);
      else this.#optionReceived(step.option, step.memory);
    }
    return at;
  }

  /** Bytes to send, in order, or null when there are none. The caller owns them. */
  takeOutput(): Buffer | null {
    if (this.#outputBytes === 0) return null;
    const output = Buffer.concat(this.#output, this.#outputBytes);
    this.#output = [];
    this.#outputBytes = 0;
    return output;
  }

  #clientFlagsReceived(flags: number): void {
    // "Client flags": the connection is dropped when the client sets a flag that is not known.
    if ((flags & ~HANDSHAKE_FLAGS) !== 0) {
      this.#close('the client set unknown client flags');
      return;
    }
    this.#clientFlags = flags;
    this.#awaitOption();
  }

  #awaitOption(): void {
    const memory = Buffer.alloc(NBD_OPTION_HEADER_BYTES);
    this.#step = { kind: 'optionHeader', memory, filled: 0 };
  }

  #headerReceived(header: Buffer): void {
    const option = header.readUInt32BE(8);
    const length = header.readUInt32BE(12);
    const refusal = this.#refusalOf(header, option, length);
    this.#options += 1;
    if (refusal !== null) this.#close(refusal);
    else if (length === 0) this.#optionReceived(option, NOTHING);
    else if (length > OPTION_BYTES_MAX || !isKnownOption(option)) {
      this.#step = { kind: 'skippedData', option, left: length };
    } else {
      this.#step = { kind: 'optionData', option, memory: Buffer.alloc(length), filled: 0 };
    }
  }

  /** Why the connection is to be closed at this header, or null. */
  #refusalOf(header: Buffer, option: number, length: number): string | null {
    if (header.compare(NBD_OPTION_MAGIC, 0, 8, 0, 8) !== 0) return 'wrong option magic';
    if (this.#options >= OPTIONS_MAX) return `more than ${OPTIONS_MAX} options`;
    if (length > SKIPPED_OPTION_BYTES_MAX) return `option data of ${length} bytes`;
    if (this.#outputBytes > OUTPUT_BYTES_MAX) return 'the client does not wait for its replies';
    // Without fixed newstyle, replies other than the one to EXPORT_NAME are not understood.
    if (option !== NBD_OPT.EXPORT_NAME && !this.#clientHas(NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE)) {
      return `option ${option} from a client without fixed newstyle`;
    }
    return null;
  }

  /** The data was not kept: it was too long, or the option is unknown. */
  #dataSkipped(option: number): void {
    this.#awaitOption();
    if (option === NBD_OPT.EXPORT_NAME) this.#close('the export name is too long');
    else if (option === NBD_OPT.ABORT) this.#abortReceived();
    else if (!isKnownOption(option)) this.#unsupported(option);
    else {
      if (option === NBD_OPT.SET_META_CONTEXT) this.#selection = NO_SELECTION;
      this.#refuse(option, NBD_REP.ERR_TOO_BIG, 'the option data is too long');
    }
  }

  #optionReceived(option: number, data: Buffer): void {
    this.#awaitOption();
    switch (option) {
      case NBD_OPT.EXPORT_NAME:
        this.#exportNameReceived(data);
        break;
      case NBD_OPT.ABORT:
        this.#abortReceived();
        break;
      case NBD_OPT.LIST:
        this.#listReceived(data);
        break;
      case NBD_OPT.INFO:
      case NBD_OPT.GO:
        this.#infoReceived(option, data);
        break;
      case NBD_OPT.STRUCTURED_REPLY:
        this.#structuredReplyReceived(data);
        break;
      case NBD_OPT.LIST_META_CONTEXT:
      case NBD_OPT.SET_META_CONTEXT:
        this.#metaContextReceived(option, data);
        break;
      default:
        // "NOTLS mode" answers NBD_OPT_STARTTLS like any option that is not known.
        this.#unsupported(option);
    }
  }

  /** NBD_OPT_EXPORT_NAME has no error reply: the session is terminated instead. */
  #exportNameReceived(data: Buffer): void {
    const name = parseName(data);
    const info = name === null ? null : this.#catalog.find(name);
    if (name === null || info === null) {
      this.#close('the client asked for an export that does not exist');
      return;
    }
    const noZeroes = this.#clientHas(NBD_HANDSHAKE_FLAG.NO_ZEROES);
    this.#push(encodeExportNameReply(info, this.#transmissionFlags(info), noZeroes));
    this.#enterTransmission(name, info);
  }

  /** NBD_OPT_ABORT is acknowledged, whatever data it has; then the client goes. */
  #abortReceived(): void {
    this.#reply(NBD_OPT.ABORT, NBD_REP.ACK);
    this.#close('the client ended the negotiation');
  }

  #listReceived(data: Buffer): void {
    const option = NBD_OPT.LIST;
    if (data.length > 0) {
      this.#refuse(option, NBD_REP.ERR_INVALID, 'this option has no data');
      return;
    }
    for (const info of this.#catalog.list()) {
      this.#reply(option, NBD_REP.SERVER, encodeServer(info));
    }
    this.#reply(option, NBD_REP.ACK);
  }

  #infoReceived(option: number, data: Buffer): void {
    const request = parseInfoRequest(data);
    if (request === null) {
      this.#refuse(option, NBD_REP.ERR_INVALID, 'malformed request for information');
      return;
    }
    const info = this.#catalog.find(request.name);
    if (info === null) {
      this.#refuse(option, NBD_REP.ERR_UNKNOWN, 'there is no export of that name');
      return;
    }
    const flags = this.#transmissionFlags(info);
    this.#reply(option, NBD_REP.INFO, encodeInfoExport(info.sizeBytes, flags));
    if (request.wanted.has(NBD_INFO.NAME)) {
      this.#reply(option, NBD_REP.INFO, encodeInfoText(NBD_INFO.NAME, info.name));
    }
    if (request.wanted.has(NBD_INFO.DESCRIPTION) && info.description !== '') {
      this.#reply(option, NBD_REP.INFO, encodeInfoText(NBD_INFO.DESCRIPTION, info.description));
    }
    // Unasked too: a client that understands it then sends no request that has to be refused.
    this.#reply(option, NBD_REP.INFO, encodeInfoBlockSize(info));
    this.#reply(option, NBD_REP.ACK);
    if (option === NBD_OPT.GO) this.#enterTransmission(request.name, info);
  }

  #structuredReplyReceived(data: Buffer): void {
    const option = NBD_OPT.STRUCTURED_REPLY;
    if (data.length > 0) {
      this.#refuse(option, NBD_REP.ERR_INVALID, 'this option has no data');
      return;
    }
    this.#structuredReplies = true;
    this.#reply(option, NBD_REP.ACK);
  }

  #metaContextReceived(option: number, data: Buffer): void {
    const isSet = option === NBD_OPT.SET_META_CONTEXT;
    // NBD_OPT_SET_META_CONTEXT replaces what was set before, even if it fails.
    if (isSet) this.#selection = NO_SELECTION;
    const request = parseMetaContextRequest(data);
    if (request === null || !this.#structuredReplies) {
      const why = request === null ? 'malformed query' : 'structured replies come first';
      this.#refuse(option, NBD_REP.ERR_INVALID, why);
      return;
    }
    const info = this.#catalog.find(request.name);
    if (info === null) {
      this.#refuse(option, NBD_REP.ERR_UNKNOWN, 'there is no export of that name');
      return;
    }
    // No query, and "base:", mean every context in a list and none in a selection.
    const { queries } = request;
    const isWildcard = !isSet && (queries.length === 0 || queries.includes('base:'));
    if (info.blockStatus && (isWildcard || queries.includes(ALLOCATION_CONTEXT))) {
      const id = isSet ? ALLOCATION_CONTEXT_ID : 0;
      this.#reply(option, NBD_REP.META_CONTEXT, encodeMetaContext(id, ALLOCATION_CONTEXT));
      const contexts = [{ name: ALLOCATION_CONTEXT, id }];
      if (isSet) this.#selection = { exportName: request.name, contexts };
    }
    this.#reply(option, NBD_REP.ACK);
  }

  #enterTransmission(exportName: string, info: NbdExportInfo): void {
    // "Metadata querying": contexts count only for the export name they were selected with.
    const isSelected = this.#selection.exportName === exportName;
    const result = {
      exportName,
      export: info,
      transmissionFlags: this.#transmissionFlags(info),
      structuredReplies: this.#structuredReplies,
      metaContexts: isSelected ? this.#selection.contexts : [],
      noZeroes: this.#clientHas(NBD_HANDSHAKE_FLAG.NO_ZEROES),
    };
    this.#step = { kind: 'transmission', result };
  }

  /** "Transmission flags": HAS_FLAGS is always set, SEND_DF only with structured replies. */
  #transmissionFlags(info: NbdExportInfo): number {
    const flags = info.transmissionFlags | NBD_FLAG.HAS_FLAGS;
    return this.#structuredReplies ? flags : flags & ~NBD_FLAG.SEND_DF;
  }

  #clientHas(flag: number): boolean {
    return (this.#clientFlags & flag) !== 0;
  }

  #unsupported(option: number): void {
    this.#refuse(option, NBD_REP.ERR_UNSUP, 'this server does not know the option');
  }

  #refuse(option: number, type: number, message: string): void {
    this.#reply(option, type, Buffer.from(message, 'utf8'));
  }

  #reply(option: number, type: number, data: Uint8Array = NOTHING): void {
    this.#push(encodeOptionReply(option, type, data));
  }

  #push(bytes: Buffer): void {
    this.#output.push(bytes);
    this.#outputBytes += bytes.length;
  }

  #close(reason: string): void {
    this.#step = { kind: 'closed', reason };
  }
}

const KNOWN_OPTIONS: ReadonlySet<number> = new Set(Object.values(NBD_OPT));

function isKnownOption(option: number): boolean {
  return KNOWN_OPTIONS.has(option);
}
