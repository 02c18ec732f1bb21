import { BHS_BYTES } from '../pdu/pdu.js';
import type { ResponseHeader } from '../pdu/pdu-response.js';
import type { TaskReporting } from '../pdu/session-parameters.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { AsyncMessage } from './connection-notice.js';

/** PDUs that a target sends unasked, decoded, and what they ask of us. */

/** RFC 7143 §11.9 (Asynchronous Message): its fields, and the sense data of a SCSI event. */
export function decodeAsyncMessage(header: ResponseHeader, data: Buffer): AsyncMessage {
  const senseLength = data.length >= 2 ? Math.min(data.readUInt16BE(0), data.length - 2) : 0;
  return {
    event: header.asyncEvent,
    vendorCode: header.asyncVendorCode,
    parameter1: header.parameter1,
    parameter2: header.parameter2,
    parameter3: header.parameter3,
    lunUpper: header.lunUpper,
    lunLower: header.lunLower,
    sense: Buffer.from(data.subarray(2, 2 + senseLength)),
  };
}

/** Events of RFC 7143 §11.9.1 (AsyncEvent). */
export const AsyncEvent = {
  scsi: 0,
  logoutRequest: 1,
  connectionDrop: 2,
  sessionDrop: 3,
  negotiationRequest: 4,
  taskTermination: 5,
} as const;

const TERMINATION =
  'the target sends AsyncEvent 5 without TaskReporting=FastAbort, which it needs; it is ignored';

type AsyncOrder =
  | { readonly type: 'none' }
  /** Log out and in again, no later than this. */
  | { readonly type: 'logOut'; readonly withinMs: number }
  /** The target ends the connection; we may not reconnect before this time. */
  | { readonly type: 'connectionGoes'; readonly time2WaitMs: number };

/**
 * What RFC 7143 §11.9.1 (AsyncEvent) asks the session to do. A request to negotiate is honoured by
 * a new login.
 */
export function asyncOrderOf(
  message: AsyncMessage,
  context: {
    readonly cid: number;
    readonly taskReporting: TaskReporting;
    readonly quirks: QuirkLog;
  },
): AsyncOrder {
  const { event, parameter1, parameter2, parameter3 } = message;
  switch (event) {
    case AsyncEvent.logoutRequest:
    case AsyncEvent.negotiationRequest:
      return { type: 'logOut', withinMs: Math.max(parameter3, 1) * 1000 };
    case AsyncEvent.connectionDrop:
      if (parameter1 !== context.cid) return { type: 'none' };
      return { type: 'connectionGoes', time2WaitMs: parameter2 * 1000 };
    case AsyncEvent.sessionDrop:
      return { type: 'connectionGoes', time2WaitMs: parameter2 * 1000 };
    case AsyncEvent.taskTermination:
      if (context.taskReporting !== 'FastAbort') {
        context.quirks.met('async-termination', TERMINATION);
      }
      return { type: 'none' };
    default:
      // SCSI and vendor events, and unassigned ones: they are reported and have no effect.
      return { type: 'none' };
  }
}

/** Reason 0bh of RFC 7143 §11.17.1 (Reason): deprecated, and the end of the connection. */
const NEGOTIATION_RESET = 0x0b;

type Rejection = {
  readonly reason: number;
  /** Opcode, tag and command number of the header that was rejected. */
  readonly opcode: number;
  readonly initiatorTaskTag: number;
};

/** RFC 7143 §11.17 (Reject): the reason, and which PDU of ours it is about. */
export function decodeReject(header: ResponseHeader, data: Buffer): Rejection {
  if (data.length < BHS_BYTES) {
    throw brokenRule('reject-size', `Reject with ${data.length} bytes of the bad header`);
  }
  const reason = header.response;
  if (reason === NEGOTIATION_RESET) {
    throw brokenRule('reject-negotiation', 'Reject with the deprecated reason Negotiation Reset');
  }
  return {
    reason,
    opcode: (data[0] ?? 0) & 0x3f,
    initiatorTaskTag: data.readUInt32BE(16),
  };
}
