import type { LunField } from '../../scsi/command.js';

/**
 * The login and text PDUs as plain values. The codec turns them into bytes and back; the machines
 * in this folder make and read them. Tags and sequence numbers are unsigned 32-bit numbers.
 */

/** Stage codes of RFC 7143 §11.12.3 (CSG and NSG). */
export const SECURITY_STAGE = 0;
export const OPERATIONAL_STAGE = 1;
export const FULL_FEATURE_PHASE = 3;

type LoginStage = typeof SECURITY_STAGE | typeof OPERATIONAL_STAGE | typeof FULL_FEATURE_PHASE;

/** RFC 7143 §11.12 (Login Request). `data` is at most 8192 bytes, without padding. */
export type LoginRequest = {
  readonly transit: boolean;
  readonly continued: boolean;
  readonly currentStage: LoginStage;
  readonly nextStage: LoginStage;
  readonly versionMax: 0;
  readonly versionMin: 0;
  /** 6 bytes. */
  readonly isid: Uint8Array;
  readonly tsih: number;
  readonly initiatorTaskTag: number;
  readonly cid: number;
  readonly cmdSN: number;
  readonly expStatSN: number;
  readonly data: Buffer;
};

/** RFC 7143 §11.13 (Login Response) as received: stages are the raw two bits, 0 … 3. */
export type LoginResponse = {
  readonly transit: boolean;
  readonly continued: boolean;
  readonly currentStage: number;
  readonly nextStage: number;
  readonly versionMax: number;
  readonly versionActive: number;
  /** 6 bytes. */
  readonly isid: Uint8Array;
  readonly tsih: number;
  readonly initiatorTaskTag: number;
  readonly statSN: number;
  readonly expCmdSN: number;
  readonly maxCmdSN: number;
  readonly statusClass: number;
  readonly statusDetail: number;
  readonly data: Buffer;
};

/** RFC 7143 §11.10 (Text Request); CmdSN and ExpStatSN are the connection's. */
export type TextRequest = {
  readonly final: boolean;
  readonly continued: boolean;
  readonly lun: LunField;
  readonly initiatorTaskTag: number;
  readonly targetTransferTag: number;
  readonly data: Buffer;
};

/** RFC 7143 §11.11 (Text Response); its numbers are the connection's business. */
export type TextResponse = {
  readonly final: boolean;
  readonly continued: boolean;
  readonly lun: LunField;
  readonly initiatorTaskTag: number;
  readonly targetTransferTag: number;
  readonly data: Buffer;
};
