import type { ProtocolError } from '../../base/errors.js';
import type { ResponseHeader } from '../pdu/pdu-response.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { ConnectionNotice } from './connection-notice.js';

/** A Logout Response (RFC 7143 §11.15 (Logout Response)) and the end of the connection with it. */

type LogoutAnswer = Extract<ConnectionNotice, { type: 'logoutAnswered' }>;

/** The answer to the one Logout Request, which has the tag `logoutTag`. */
export function decodeLogoutResponse(
  header: ResponseHeader,
  logoutTag: number,
  quirks: QuirkLog,
): LogoutAnswer {
  const { response, time2Wait, initiatorTaskTag } = header;
  if (initiatorTaskTag !== logoutTag) {
    quirks.met('logout-tag', 'a Logout Response of the target has the tag of no Logout Request');
  }
  return { type: 'logoutAnswered', response, time2WaitSeconds: time2Wait };
}

/**
 * The error that the answer means, if any, and the time until the next login. Time2Wait counts when
 * the logout did not succeed, and is invalid with response 1 (RFC 7143 §11.15.3 (Time2Wait)).
 */
export function logoutOutcome(answer: LogoutAnswer): {
  readonly error: ProtocolError | null;
  readonly time2WaitMs: number | undefined;
} {
  const { response, time2WaitSeconds } = answer;
  if (response === 0) return { error: null, time2WaitMs: 0 };
  const error = brokenRule('logout-response', `the target answered the logout with ${response}`);
  return { error, time2WaitMs: response === 1 ? undefined : time2WaitSeconds * 1000 };
}
