import type { LoginResponse, TextResponse } from './login-pdu.js';
import { CONTINUE_BIT, DataInBit, FINAL_BIT } from './pdu.js';

/**
 * Header of one target PDU, decoded into a reusable object: every 32-bit word by the name it has
 * in most PDUs; accessors give the names single PDUs use.
 *
 * Byte map (RFC 7143 §11.4 (SCSI Response), §11.6–§11.9, §11.15, §11.17, §11.19):
 *   0 opcode · 1 flags · 2 response · 3 status · 5–7 DataSegmentLength · 8–15 LUN · 16 ITT
 *   20 TTT · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN · 36, 40, 44 own
 */
export class ResponseHeader {
  opcode = 0;
  flags = 0;
  /** Byte 2: Response, Reason (Reject), VersionMax. */
  response = 0;
  /** Byte 3: SCSI status. */
  status = 0;
  dataSegmentLength = 0;
  lunUpper = 0;
  lunLower = 0;
  initiatorTaskTag = 0;
  targetTransferTag = 0;
  statSN = 0;
  expCmdSN = 0;
  maxCmdSN = 0;
  word36 = 0;
  word40 = 0;
  word44 = 0;

  /** Reads 48 bytes of `view` at `at`. */
  decode(view: DataView, at: number): void {
    const first = view.getUint32(at);
    this.opcode = (first >>> 24) & 0x3f;
    this.flags = (first >>> 16) & 0xff;
    this.response = (first >>> 8) & 0xff;
    this.status = first & 0xff;
    this.dataSegmentLength = view.getUint32(at + 4) & 0xffffff;
    this.lunUpper = view.getUint32(at + 8);
    this.lunLower = view.getUint32(at + 12);
    this.initiatorTaskTag = view.getUint32(at + 16);
    this.targetTransferTag = view.getUint32(at + 20);
    this.statSN = view.getUint32(at + 24);
    this.expCmdSN = view.getUint32(at + 28);
    this.maxCmdSN = view.getUint32(at + 32);
    this.word36 = view.getUint32(at + 36);
    this.word40 = view.getUint32(at + 40);
    this.word44 = view.getUint32(at + 44);
  }

  get final(): boolean {
    return (this.flags & FINAL_BIT) !== 0;
  }
  /** A Data-In that carries the status of its command. */
  get hasStatus(): boolean {
    return (this.flags & DataInBit.status) !== 0;
  }
  /** DataSN of Data-In, R2TSN of R2T, ExpDataSN of SCSI Response. */
  get dataSN(): number {
    return this.word36;
  }
  /** Buffer Offset of Data-In and R2T. */
  get bufferOffset(): number {
    return this.word40;
  }
  /** Desired Data Transfer Length of R2T; Residual Count of Data-In and SCSI Response. */
  get desiredDataTransferLength(): number {
    return this.word44;
  }
  get residualCount(): number {
    return this.word44;
  }
  /** AsyncEvent and AsyncVCode (RFC 7143 §11.9 (Asynchronous Message)). */
  get asyncEvent(): number {
    return this.word36 >>> 24;
  }
  get asyncVendorCode(): number {
    return (this.word36 >>> 16) & 0xff;
  }
  get parameter1(): number {
    return this.word36 & 0xffff;
  }
  get parameter2(): number {
    return this.word40 >>> 16;
  }
  get parameter3(): number {
    return this.word40 & 0xffff;
  }
  /** Time2Wait and Time2Retain of Logout Response (RFC 7143 §11.15 (Logout Response)). */
  get time2Wait(): number {
    return this.word40 >>> 16;
  }
  get time2Retain(): number {
    return this.word40 & 0xffff;
  }
}

/** RFC 7143 §11.13 (Login Response). `bytes` is the header; `data` its whole data segment. */
export function decodeLoginResponse(bytes: Buffer, data: Buffer): LoginResponse {
  const flags = bytes[1] ?? 0;
  return {
    transit: (flags & FINAL_BIT) !== 0,
    continued: (flags & CONTINUE_BIT) !== 0,
    currentStage: (flags >> 2) & 3,
    nextStage: flags & 3,
    versionMax: bytes[2] ?? 0,
    versionActive: bytes[3] ?? 0,
    isid: Buffer.from(bytes.subarray(8, 14)),
    tsih: bytes.readUInt16BE(14),
    initiatorTaskTag: bytes.readUInt32BE(16),
    statSN: bytes.readUInt32BE(24),
    expCmdSN: bytes.readUInt32BE(28),
    maxCmdSN: bytes.readUInt32BE(32),
    statusClass: bytes[36] ?? 0,
    statusDetail: bytes[37] ?? 0,
    data,
  };
}

/** RFC 7143 §11.11 (Text Response). */
export function decodeTextResponse(header: ResponseHeader, data: Buffer): TextResponse {
  return {
    final: header.final,
    continued: (header.flags & CONTINUE_BIT) !== 0,
    lun: { upper: header.lunUpper, lower: header.lunLower },
    initiatorTaskTag: header.initiatorTaskTag,
    targetTransferTag: header.targetTransferTag,
    data,
  };
}
