/**
 * A target over real sockets that does what a test tells it to, right or wrong. Its codec is
 * peer-pdu's and its rules are its own; one disk of 512-byte blocks filled with one byte.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import {
  type Digests,
  decodePdus,
  encodePdu,
  FROM,
  type InitiatorPdu,
  linesOf,
  NO_DIGESTS,
  OP,
  operationalAnswer,
  type TargetPdu,
  textOf,
} from './peer-pdu.js';

export const HOSTILE_NAME = 'iqn.2024-01.com.example:hostile';
export const FILL = 0xab;
const BLOCK_BYTES = 512;
const BLOCKS = 2048;

/** Returns true when it has dealt with the PDU; false leaves it to the correct target. */
export type Behaviour = (pdu: InitiatorPdu, link: HostileLink) => boolean;

export type HostileOptions = {
  readonly login?: Behaviour;
  readonly fullFeature?: Behaviour;
  readonly keys?: Readonly<Record<string, string>>;
  readonly firstStatSN?: number;
  readonly windowSize?: number;
  /** Told of each connection; true means that it is dealt with. */
  readonly accepted?: (link: HostileLink) => boolean;
};

/** One connection of the initiator. */
export class HostileLink {
  readonly target: HostileTarget;
  readonly socket: Socket;
  digests: Digests = NO_DIGESTS;
  statSN: number;
  expCmdSN = 1;
  readonly #options: HostileOptions;
  #bytes: Buffer = Buffer.alloc(0);
  #isLoggedIn = false;
  readonly #writes = new Map<number, { at: number; data: Buffer; left: number }>();

  constructor(target: HostileTarget, socket: Socket, options: HostileOptions) {
    this.target = target;
    this.socket = socket;
    this.#options = options;
    this.statSN = options.firstStatSN ?? 1000;
    socket.on('data', (bytes) => this.#received(bytes));
    socket.on('error', () => undefined);
  }

  get maxCmdSN(): number {
    return (this.expCmdSN + (this.#options.windowSize ?? 64) - 1) >>> 0;
  }

  /** Bytes of a PDU with the numbers of the moment. */
  encode(pdu: TargetPdu): Buffer {
    const { expCmdSN, maxCmdSN } = this;
    const flags = pdu.flags ?? 0x80;
    const isUncounted =
      pdu.opcode === OP.r2t ||
      (pdu.opcode === OP.nopIn && (pdu.itt ?? 0xffffffff) === 0xffffffff) ||
      (pdu.opcode === OP.dataIn && (flags & 1) === 0);
    const { statSN } = this;
    if (!isUncounted && pdu.statSN === undefined) this.statSN = (statSN + 1) >>> 0;
    return encodePdu({ statSN, expCmdSN, maxCmdSN, ...pdu }, this.digests);
  }

  send(...pdus: readonly TargetPdu[]): void {
    this.write(Buffer.concat(pdus.map((pdu) => this.encode(pdu))));
  }

  write(bytes: Buffer): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }

  /** A login response; without `fields` it agrees to what the request proposes. */
  answerLogin(request: InitiatorPdu, lines: readonly string[], fields: Partial<TargetPdu> = {}) {
    const bytes = this.encodeLogin(request, lines, fields);
    this.write(bytes);
    if ((bytes[1]! & 0x83) === 0x83 && bytes.readUInt16BE(36) === 0) this.loggedIn();
  }

  encodeLogin(request: InitiatorPdu, lines: readonly string[], fields: Partial<TargetPdu> = {}) {
    const answer = { opcode: OP.login, flags: request.flags, itt: request.itt, ttt: 0 };
    const bytes = this.encode({ ...answer, data: textOf(lines), ...fields });
    request.header.copy(bytes, 8, 8, 14);
    if ((bytes[1]! & 0x83) === 0x83) bytes.writeUInt16BE(7, 14);
    return bytes;
  }

  loggedIn(): void {
    const { keys = {} } = this.#options;
    this.#isLoggedIn = true;
    this.digests = {
      header: keys['HeaderDigest'] === 'CRC32C',
      data: keys['DataDigest'] === 'CRC32C',
    };
  }

  /** GOOD, or what `fields` say. */
  respond(command: InitiatorPdu, fields: Partial<TargetPdu> = {}): void {
    this.send({ opcode: OP.scsiResponse, itt: command.itt, ttt: 0, ...fields });
  }

  /** The bytes a read command asks for. */
  bytesOf(command: InitiatorPdu): Buffer {
    const { at, length } = transferOf(command);
    return Buffer.from(this.target.disk.subarray(at, at + length));
  }

  #received(bytes: Buffer): void {
    const { pdus, rest } = decodePdus(Buffer.concat([this.#bytes, bytes]), this.digests);
    this.#bytes = rest;
    for (const pdu of pdus) {
      if (!pdu.immediate && pdu.opcode !== FROM.dataOut) this.expCmdSN = (pdu.cmdSN + 1) >>> 0;
      this.#take(pdu);
    }
  }

  #take(pdu: InitiatorPdu): void {
    if (!this.#isLoggedIn) {
      this.expCmdSN = pdu.cmdSN;
      if (this.#options.login?.(pdu, this) !== true) this.login(pdu);
      return;
    }
    if (this.#options.fullFeature?.(pdu, this) === true) return;
    this.fullFeature(pdu);
  }

  /** What a correct target does with a login request. */
  login(pdu: InitiatorPdu): void {
    const isSecurity = (pdu.flags & 0x0c) === 0;
    const lines = isSecurity
      ? ['TargetPortalGroupTag=1', 'AuthMethod=None']
      : operationalAnswer(this.#options.keys ?? {}, linesOf(pdu));
    this.answerLogin(pdu, lines);
  }

  /** What a correct target does with any other request. */
  fullFeature(pdu: InitiatorPdu): void {
    switch (pdu.opcode) {
      case FROM.scsiCommand:
        this.command(pdu);
        return;
      case FROM.dataOut:
        this.#dataOut(pdu);
        return;
      case FROM.nopOut:
        if (pdu.itt !== 0xffffffff) this.send({ opcode: OP.nopIn, itt: pdu.itt, data: pdu.data });
        return;
      case FROM.taskManagement:
        this.send({ opcode: OP.taskManagement, itt: pdu.itt, ttt: 0 });
        return;
      case FROM.logout:
        this.send({ opcode: OP.logout, itt: pdu.itt, ttt: 0 });
        this.socket.end();
        return;
      default:
    }
  }

  command(pdu: InitiatorPdu): void {
    const operation = pdu.header[32]!;
    if (isWrite(operation)) {
      this.#write(pdu);
      return;
    }
    const { serial } = this.target;
    const cdb = pdu.header.subarray(32);
    const data = isRead(operation) ? this.bytesOf(pdu) : parameterData(cdb, serial);
    if (data === null) {
      // ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE.
      const sense = Buffer.from('0012700005000000000a00000000200000000000', 'hex');
      this.respond(pdu, { byte3: 2, data: sense });
      return;
    }
    this.sendData(pdu, data.subarray(0, pdu.word20));
  }

  /** Data-In in segments of `segmentBytes` and a SCSI Response. */
  sendData(pdu: InitiatorPdu, data: Buffer, segmentBytes = 4096): void {
    let number = 0;
    for (let at = 0; at < data.length; at += segmentBytes) {
      const piece = data.subarray(at, at + segmentBytes);
      const flags = at + piece.length === data.length ? 0x80 : 0;
      const fields = { flags, word36: number, word40: at, data: piece };
      this.send({ opcode: OP.dataIn, itt: pdu.itt, ...fields });
      number += 1;
    }
    const residual = pdu.word20 - data.length;
    const flags = residual > 0 ? 0x82 : 0x80;
    this.respond(pdu, { flags, word36: number, word44: residual });
  }

  #write(pdu: InitiatorPdu): void {
    const { at, length } = transferOf(pdu);
    const data = Buffer.alloc(length);
    pdu.data.copy(data);
    const write = { at, data, left: length - pdu.data.length };
    this.#writes.set(pdu.itt, write);
    if (write.left === 0) this.#written(pdu.itt);
    else this.ask(pdu, pdu.data.length, write.left);
  }

  /** R2Ts for the rest of a write, each within MaxBurstLength. */
  ask(pdu: InitiatorPdu, start: number, length: number): void {
    const burst = Number(this.#options.keys?.['MaxBurstLength'] ?? 262144);
    for (let at = 0; at < length; at += burst) {
      const take = Math.min(burst, length - at);
      const fields = { ttt: 0x55, word36: at / burst, word40: start + at, word44: take };
      this.send({ opcode: OP.r2t, itt: pdu.itt, lun: pdu.lun, ...fields });
    }
  }

  /** Begins a write of which the behaviour asks for the data itself. */
  beginWrite(pdu: InitiatorPdu): number {
    const { at, length } = transferOf(pdu);
    const data = Buffer.alloc(length);
    pdu.data.copy(data);
    this.#writes.set(pdu.itt, { at, data, left: length - pdu.data.length });
    return length - pdu.data.length;
  }

  #dataOut(pdu: InitiatorPdu): void {
    const write = this.#writes.get(pdu.itt);
    if (write === undefined) return;
    pdu.data.copy(write.data, pdu.word40);
    write.left -= pdu.data.length;
    if (write.left === 0) this.#written(pdu.itt);
  }

  #written(itt: number): void {
    const write = this.#writes.get(itt);
    if (write === undefined) return;
    this.#writes.delete(itt);
    write.data.copy(this.target.disk, write.at);
    this.send({ opcode: OP.scsiResponse, itt, ttt: 0 });
  }
}

export class HostileTarget {
  readonly disk = Buffer.alloc(BLOCKS * BLOCK_BYTES, FILL);
  readonly links: HostileLink[] = [];
  readonly #server: Server;

  private constructor(options: HostileOptions) {
    this.#server = createServer((socket) => {
      const link = new HostileLink(this, socket, options);
      this.links.push(link);
      options.accepted?.(link);
    });
  }

  static async start(options: HostileOptions): Promise<HostileTarget> {
    const target = new HostileTarget(options);
    await new Promise<void>((resolve) => target.#server.listen(0, '127.0.0.1', resolve));
    return target;
  }

  /** Of its disk, in 8 characters; none of another target's that runs now. */
  get serial(): string {
    return `HST${this.port}`.padEnd(8, '0').slice(0, 8);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const link of this.links) link.socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

export function isRead(operation: number): boolean {
  return operation === 0x28 || operation === 0x88;
}

export function isWrite(operation: number): boolean {
  return operation === 0x2a || operation === 0x8a;
}

function transferOf(pdu: InitiatorPdu): { readonly at: number; readonly length: number } {
  const cdb = pdu.header.subarray(32);
  const lba = (cdb[0]! & 0x80) === 0 ? cdb.readUInt32BE(2) : Number(cdb.readBigUInt64BE(2));
  return { at: lba * BLOCK_BYTES, length: pdu.word20 };
}

/** Answers of SPC-4 and SBC-3 of a plain disk, byte by byte; null for what it does not know. */
function parameterData(cdb: Buffer, serial: string): Buffer | null {
  switch (cdb[0]) {
    case 0x00: // TEST UNIT READY
    case 0x35: // SYNCHRONIZE CACHE(10)
    case 0x91: // SYNCHRONIZE CACHE(16)
      return Buffer.alloc(0);
    case 0x12:
      return inquiry(cdb, serial);
    case 0xa0: // REPORT LUNS: LUN 0
      return Buffer.from(`00000008${'00'.repeat(4)}${'00'.repeat(8)}`, 'hex');
    case 0x25: // READ CAPACITY(10)
      return Buffer.from('000007ff00000200', 'hex');
    case 0x9e: // READ CAPACITY(16)
      return Buffer.concat([Buffer.from('00000000000007ff00000200', 'hex'), Buffer.alloc(20)]);
    case 0x1a: // MODE SENSE(6): caching page, WCE 0
      return Buffer.from(`17000000 0812${'00'.repeat(18)}`.replace(' ', ''), 'hex');
    case 0x5a: // MODE SENSE(10)
      return Buffer.from(`001a000000000000 0812${'00'.repeat(18)}`.replace(' ', ''), 'hex');
    default:
      return null;
  }
}

function inquiry(cdb: Buffer, serial: string): Buffer | null {
  if ((cdb[1]! & 1) === 0) {
    const text = 'EXAMPLE HOSTILE DISK    0001';
    return Buffer.concat([Buffer.from('000006021f000002', 'hex'), Buffer.from(text)]);
  }
  switch (cdb[2]) {
    case 0x00:
      return Buffer.from('00000003008083', 'hex');
    case 0x80:
      return Buffer.concat([Buffer.from('00800008', 'hex'), Buffer.from(serial)]);
    case 0x83:
      return Buffer.from('0083000c010300086001234567890abc', 'hex');
    default:
      return null;
  }
}
