/** Numbers of RFC 7143 §11 (iSCSI PDU Formats) that encoder and decoder share. */

/** Basic Header Segment length in bytes (§11.2.1 (Basic Header Segment (BHS))). */
export const BHS_BYTES = 48;
/** TotalAHSLength counts 4-byte words in one byte (§11.2.1.5 (TotalAHSLength)). */
export const AHS_BYTES_MAX = 255 * 4;
export const DIGEST_BYTES = 4;
/** The tag that names nothing: Initiator Task Tag and Target Transfer Tag. */
export const RESERVED_TAG = 0xffffffff;

export const RequestOpcode = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
  snack: 0x10,
} as const;

export const ResponseOpcode = {
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagement: 0x22,
  login: 0x23,
  text: 0x24,
  dataIn: 0x25,
  logout: 0x26,
  r2t: 0x31,
  async: 0x32,
  reject: 0x3f,
} as const;

/** Bit I of byte 0: deliver at once, outside the command order. */
export const IMMEDIATE_BIT = 0x40;
/** Bit F of byte 1 (T in login PDUs). */
export const FINAL_BIT = 0x80;
/** Bit C of byte 1 in login and text PDUs. */
export const CONTINUE_BIT = 0x40;

export const ScsiCommandBit = { read: 0x40, write: 0x20 } as const;
/** Task attribute in a SCSI Command PDU (§11.3.1 (Flags and Task Attributes (Byte 1))). */
export const TASK_ATTRIBUTE_SIMPLE = 1;

export const DataInBit = {
  acknowledge: 0x40,
  overflow: 0x04,
  underflow: 0x02,
  status: 0x01,
} as const;
export const ScsiResponseBit = {
  bidirectionalOverflow: 0x10,
  bidirectionalUnderflow: 0x08,
  overflow: 0x04,
  underflow: 0x02,
} as const;

/** Task management functions (§11.5.1 (Function)). */
export const TaskManagementFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

/** Logout reasons (§11.14.1 (Reason Code)). */
export const LogoutReason = { closeSession: 0, closeConnection: 1, recovery: 2 } as const;

/** Bytes of padding after `length` bytes of data (§11.2.3 (Data Segment): 4-byte words). */
export function paddingBytes(length: number): number {
  return -length & 3;
}
