import type { LunField } from '../../scsi/command.js';
import type { LoginStep } from '../login/login.js';
import type { TextResponse } from '../pdu/login-pdu.js';

/** What a connection tells its session; control path only, so these are plain objects. */
export type ConnectionNotice =
  | Extract<LoginStep, { type: 'done' | 'redirect' }>
  | { readonly type: 'textReceived'; readonly response: TextResponse }
  | {
      readonly type: 'logoutAnswered';
      /** RFC 7143 §11.15.1 (Response). */
      readonly response: number;
      readonly time2WaitSeconds: number;
    }
  | { readonly type: 'asyncReceived'; readonly message: AsyncMessage }
  | {
      readonly type: 'taskManagementAnswered';
      readonly initiatorTaskTag: number;
      /** RFC 7143 §11.6.1 (Response). */
      readonly response: number;
    }
  /** A unit attention says that the tasks of a LUN before `cmdSN` may have been cleared. */
  | { readonly type: 'tasksCleared'; readonly lun: LunField; readonly cmdSN: number }
  | { readonly type: 'pingAnswered'; readonly initiatorTaskTag: number; readonly data: Buffer }
  | {
      readonly type: 'rejected';
      /** RFC 7143 §11.17.1 (Reason). */
      readonly reason: number;
      /** Opcode and tag of the header that was rejected. */
      readonly opcode: number;
      readonly initiatorTaskTag: number;
    };

/** RFC 7143 §11.9 (Asynchronous Message). */
export type AsyncMessage = {
  readonly event: number;
  readonly vendorCode: number;
  readonly parameter1: number;
  readonly parameter2: number;
  readonly parameter3: number;
  readonly lunUpper: number;
  readonly lunLower: number;
  /** Sense data of event 0, without its length field. */
  readonly sense: Buffer;
};
