import { createHash } from 'node:crypto';
import type { TargetNode } from '../../src/target/target.js';
import type { TargetConnection } from '../../src/target/target-connection.js';

/**
 * An initiator of a few bytes: it builds PDUs by offset from the byte maps of RFC 7143 §11 and
 * knows nothing of the code it talks to.
 */
export type Received = { readonly header: Buffer; readonly data: Buffer };

export const NAME = 'iqn.2024-01.example:target';
export const INITIATOR = 'iqn.2024-01.example:initiator';

export function text(...pairs: string[]): Buffer {
  return Buffer.from(pairs.map((pair) => `${pair}\0`).join(''));
}

export function pairsOf(data: Buffer): Map<string, string> {
  return new Map(
    data
      .toString()
      .split('\0')
      .filter((item) => item !== '')
      .map((item) => item.split(/=(.*)/s).slice(0, 2) as [string, string]),
  );
}

export function chapDigest(hash: string, id: number, secret: string, challenge: Buffer): string {
  const digest = createHash(hash)
    .update(Buffer.concat([Buffer.from([id]), Buffer.from(secret), challenge]))
    .digest('hex');
  return `0x${digest}`;
}

export class RawInitiator {
  readonly connection: TargetConnection;
  readonly received: Received[] = [];
  closed: string | null = null;
  cmdSN = 1;
  expStatSN = 0;
  itt = 0x100;
  isid = '400001370000';
  #bytes = Buffer.alloc(0);

  constructor(node: TargetNode, peer = { localAddress: '127.0.0.1', localPort: 3260 }) {
    this.connection = node.connect(
      (bytes) => this.#take(bytes),
      (end) => {
        this.closed = end;
      },
      peer,
    );
  }

  #take(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    while (this.#bytes.length >= 48) {
      const length = this.#bytes.readUIntBE(5, 3);
      const total = 48 + length + (-length & 3);
      if (this.#bytes.length < total) return;
      const header = this.#bytes.subarray(0, 48);
      this.received.push({ header, data: this.#bytes.subarray(48, 48 + length) });
      this.#bytes = this.#bytes.subarray(total);
      // R2T, Data-In without status and NOP-In without a task show StatSN and do not take it.
      const shown =
        header[0] === 0x31 ||
        (header[0] === 0x25 && (header[1]! & 1) === 0) ||
        (header[0] === 0x20 && header.readUInt32BE(16) === 0xffffffff);
      if (!shown) this.expStatSN = (header.readUInt32BE(24) + 1) >>> 0;
    }
  }

  /** Sends one PDU and returns everything that came back since. */
  send(header: Buffer, data: Buffer = Buffer.alloc(0)): Received[] {
    header.writeUIntBE(data.length, 5, 3);
    const from = this.received.length;
    this.connection.receive(Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]));
    return this.received.slice(from);
  }

  header(opcode: number, flags: number): Buffer {
    const header = Buffer.alloc(48);
    header[0] = opcode;
    header[1] = flags;
    header.writeUInt32BE(this.itt, 16);
    header.writeUInt32BE(this.cmdSN, 24);
    header.writeUInt32BE(this.expStatSN, 28);
    return header;
  }

  /** One Login Request; `stages` is T, C, CSG and NSG as on the wire. */
  login(stages: number, data: Buffer, options: { tsih?: number; cid?: number } = {}): Received {
    const header = this.header(0x43, stages);
    Buffer.from(this.isid, 'hex').copy(header, 8);
    header.writeUInt16BE(options.tsih ?? 0, 14);
    header.writeUInt16BE(options.cid ?? 0, 20);
    return this.send(header, data)[0]!;
  }

  /** Straight to the full feature phase, with `keys` offered. */
  logIn(...keys: string[]): Received {
    const names = [`InitiatorName=${INITIATOR}`, `TargetName=${NAME}`, 'SessionType=Normal'];
    const answer = this.login(0x87, text(...names, ...keys));
    if (answer.header[36] !== 0) throw new Error(`refused ${answer.header[36]}`);
    return answer;
  }

  /** One SCSI Command; `flags` hold F, R, W and the attribute. */
  command(options: {
    cdb: number[];
    flags: number;
    expected?: number;
    lun?: number;
    data?: Buffer;
    immediate?: boolean;
  }): Received[] {
    this.itt += 1;
    const header = this.header(options.immediate ? 0x41 : 0x01, options.flags);
    header[9] = options.lun ?? 0;
    header.writeUInt32BE(options.expected ?? 0, 20);
    Buffer.from(options.cdb).copy(header, 32);
    if (!options.immediate) this.cmdSN += 1;
    return this.send(header, options.data);
  }

  dataOut(options: {
    ttt: number;
    dataSN: number;
    offset: number;
    data: Buffer;
    final: boolean;
  }): Received[] {
    const header = this.header(0x05, options.final ? 0x80 : 0);
    header.writeUInt32BE(options.ttt, 20);
    header.writeUInt32BE(0, 24);
    header.writeUInt32BE(options.dataSN, 36);
    header.writeUInt32BE(options.offset, 40);
    return this.send(header, options.data);
  }

  taskManagement(options: { code: number; rtt?: number; refCmdSN?: number; lun?: number }): number {
    this.itt += 1;
    const header = this.header(0x42, 0x80 | options.code);
    header[9] = options.lun ?? 0;
    header.writeUInt32BE(options.rtt ?? 0xffffffff, 20);
    header.writeUInt32BE(options.refCmdSN ?? 0, 32);
    return this.send(header)[0]!.header[2]!;
  }

  logout(reason: number): Received {
    this.itt += 1;
    return this.send(this.header(0x46, 0x80 | reason))[0]!;
  }
}

export const read10 = (lba: number, blocks: number): number[] => [
  0x28,
  0,
  0,
  0,
  lba >> 8,
  lba & 255,
  0,
  blocks >> 8,
  blocks & 255,
  0,
];
export const write10 = (lba: number, blocks: number): number[] => [
  0x2a,
  0,
  0,
  0,
  lba >> 8,
  lba & 255,
  0,
  blocks >> 8,
  blocks & 255,
  0,
];
export const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0];

/** Key, ASC and ASCQ of a SCSI Response's fixed-format sense. */
export function senseOf(pdu: Received): number[] {
  const sense = pdu.data.subarray(2);
  return [sense[2]!, sense[12]!, sense[13]!];
}
