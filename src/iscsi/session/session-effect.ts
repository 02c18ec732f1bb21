import type { ProductError, ProtocolError } from '../../base/errors.js';
import type { LunField } from '../../scsi/command.js';
import type { AsyncMessage } from '../connection/connection-notice.js';
import type { PortalAddress } from '../login/portal.js';
import type { TextResponse } from '../pdu/login-pdu.js';
import type { TargetQuirk } from '../quirks/quirks.js';
import type { SessionState } from './session-state.js';
import type { EscalationStep } from './task-escalation.js';

/**
 * How a transport ends: `orderly`, or `abrupt`, so that nothing of what it still has to send leaves
 * this host: a write of a connection that was given up must not arrive after the next one's.
 */
export type LinkEnd = 'orderly' | 'abrupt';

/** Orders and news from a session to its driver, in order. */
export type SessionEffect =
  /** Open a transport to this portal, then call `linkOpened` or `linkFailed`. */
  | { readonly type: 'openLink'; readonly portal: PortalAddress }
  /** Close the transport; nothing is called back. Only after a logout is the end orderly. */
  | { readonly type: 'closeLink'; readonly end: LinkEnd }
  | {
      readonly type: 'stateChanged';
      readonly from: SessionState;
      readonly to: SessionState;
      readonly reason: string;
      /** What caused it, where that was an error. */
      readonly error?: ProductError;
    }
  /** An attempt failed; `error` says why. */
  | { readonly type: 'attemptFailed'; readonly portal: PortalAddress; readonly error: ProductError }
  /** The target sent this login elsewhere; one for each step of the way. */
  | {
      readonly type: 'redirected';
      readonly from: PortalAddress;
      readonly to: PortalAddress;
      readonly permanent: boolean;
    }
  | { readonly type: 'portalChanged'; readonly from: PortalAddress; readonly to: PortalAddress }
  /** `isOfKeys`: of what a login settled otherwise than usual, of no use to who only asks. */
  | { readonly type: 'warned'; readonly message: string; readonly isOfKeys?: true }
  /** The target violates the RFC in a way that the session tolerates; reported once for each. */
  | ({ readonly type: 'targetQuirk' } & TargetQuirk)
  /**
   * The target broke the same rule on each of the last `connections` connections, and answered no
   * command in between. Attempts continue; a caller that waits for a first success need not.
   */
  | { readonly type: 'stuck'; readonly error: ProtocolError; readonly connections: number }
  | { readonly type: 'pingAnswered'; readonly initiatorTaskTag: number; readonly data: Buffer }
  | { readonly type: 'textReceived'; readonly response: TextResponse }
  | { readonly type: 'asyncReceived'; readonly message: AsyncMessage }
  /** A task took too long: this is done about it. */
  /** `isWanted`: a caller requested it, see `CommandFlow.resetUnit`; else a task is late. */
  | { readonly type: 'escalated'; readonly step: EscalationStep; readonly isWanted: boolean }
  /** How a reset of the LUN that was asked for has ended: the target has done it, or has not. */
  | {
      readonly type: 'unitReset';
      readonly lun: LunField;
      /** Number of the request, of the caller. */
      readonly request: number;
      readonly isDone: boolean;
    }
  /** The target rejected a PDU of ours; `opcode` and tag are those of the rejected one. */
  | {
      readonly type: 'rejected';
      readonly reason: number;
      readonly opcode: number;
      readonly initiatorTaskTag: number;
    };
