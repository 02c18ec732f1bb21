/**
 * Status-Class and Status-Detail of a Login Response in words: RFC 7143 §11.13.5 (Status-Class
 * and Status-Detail).
 */

/** What to do about a status that is not success. */
type LoginPolicy =
  | 'redirect-permanent'
  | 'redirect-temporary'
  | 'refused-for-good'
  | 'authentication'
  | 'retry';

type LoginStatus = {
  /** The RFC's own name. */
  readonly name: string;
  /** Why, for a person. */
  readonly explanation: string;
  /** What that person can do. */
  readonly nextStep: string;
  /** Null for success. */
  readonly policy: LoginPolicy | null;
};

const row = (
  name: string,
  policy: LoginPolicy | null,
  explanation: string,
  nextStep: string,
): LoginStatus => ({ name, explanation, nextStep, policy });

/** Key: class in the high byte, detail in the low byte. */
const STATUSES: ReadonlyMap<number, LoginStatus> = new Map([
  [0x0000, row('Success', null, 'the login is proceeding', 'nothing')],
  [
    0x0101,
    row(
      'Target moved temporarily',
      'redirect-temporary',
      'the target can for now be reached at another address',
      'log in at the address it gives, and keep the configured one',
    ),
  ],
  [
    0x0102,
    row(
      'Target moved permanently',
      'redirect-permanent',
      'the target has moved to another address for good',
      'log in at the address it gives, and change the configured one',
    ),
  ],
  [
    0x0200,
    row(
      'Initiator error',
      'refused-for-good',
      'the target found an error in our login and does not report which',
      "look at the target's log; options it does not support are a common cause",
    ),
  ],
  [
    0x0201,
    row(
      'Authentication failure',
      'authentication',
      'the target did not accept our identity, or cannot authenticate itself to us',
      'check the CHAP user and secret of each direction here and at the target',
    ),
  ],
  [
    0x0202,
    row(
      'Authorization failure',
      'refused-for-good',
      'this initiator name is not allowed to use this target',
      "add the initiator name to the target's access list",
    ),
  ],
  [
    0x0203,
    row(
      'Not found',
      'refused-for-good',
      'no target of this name exists at this address',
      'compare the name with what discovery of this portal lists',
    ),
  ],
  [
    0x0204,
    row(
      'Target removed',
      'refused-for-good',
      'the target existed and was removed, with no forwarding address',
      'ask the administrator of the target where the disk is now',
    ),
  ],
  [
    0x0205,
    row(
      'Unsupported version',
      'refused-for-good',
      'the target does not speak version 0 of iSCSI',
      'update the target; version 0 is the only version of iSCSI',
    ),
  ],
  [
    0x0206,
    row(
      'Too many connections',
      'refused-for-good',
      'the session has as many connections as the target allows',
      'ask for fewer connections, or raise MaxConnections at the target',
    ),
  ],
  [
    0x0207,
    row(
      'Missing parameter',
      'refused-for-good',
      'our login lacks a key that the target requires, such as a name or a CHAP response',
      'give the target name; configure CHAP if the target requires it',
    ),
  ],
  [
    0x0208,
    row(
      "Can't include in session",
      'refused-for-good',
      'the target cannot extend the session to a connection at this address',
      'use portals of one portal group for one session',
    ),
  ],
  [
    0x0209,
    row(
      'Session type not supported',
      'refused-for-good',
      'the target does not offer this type of session, or not to this initiator',
      'log in to the target by name, or discover at another portal',
    ),
  ],
  [
    0x020a,
    row(
      'Session does not exist',
      'refused-for-good',
      'the login adds a connection to a session that the target does not have',
      'log in again, which makes a new session',
    ),
  ],
  [
    0x020b,
    row(
      'Invalid during login',
      'refused-for-good',
      'the target received a request that it does not allow during login',
      "look at the target's log",
    ),
  ],
  [
    0x0300,
    row(
      'Target error',
      'retry',
      'the target has a hardware or software error',
      "try later; look at the target's log",
    ),
  ],
  [
    0x0301,
    row(
      'Service unavailable',
      'retry',
      'the iSCSI service or the target is not operating at present',
      'try later; check that the target is enabled',
    ),
  ],
  [
    0x0302,
    row(
      'Out of resources',
      'retry',
      'the target lacks resources for another session or connection',
      'try later; end sessions that are not needed',
    ),
  ],
]);

/**
 * RFC 7143 §11.13.5 (Status-Class and Status-Detail): the class alone is enough to act on when the
 * detail is not known.
 */
const CLASSES: ReadonlyMap<number, LoginStatus> = new Map([
  [0, row('Success', null, 'the login is proceeding', 'nothing')],
  [
    1,
    row(
      'Redirection',
      'redirect-temporary',
      'the target is at another address',
      'log in at the address it gives',
    ),
  ],
  [
    2,
    row(
      'Initiator error',
      'refused-for-good',
      'the target refuses this login and reports no known reason',
      "look at the target's log for the status detail",
    ),
  ],
  [
    3,
    row(
      'Target error',
      'retry',
      'the target cannot accept the login at present and reports no known reason',
      "try later; look at the target's log for the status detail",
    ),
  ],
]);

/** A class that no standard defines says nothing final, so a session in an outage lives on. */
const UNKNOWN_CLASS = row(
  'Unknown status class',
  'retry',
  'the target gave a status that RFC 7143 does not define',
  "look at the target's log",
);

/** The words and the policy for any two status bytes; never fails. */
export function describeLoginStatus(statusClass: number, statusDetail: number): LoginStatus {
  const exact = STATUSES.get((statusClass << 8) | statusDetail);
  return exact ?? CLASSES.get(statusClass) ?? UNKNOWN_CLASS;
}

/** Both bytes as four hex digits, the form the RFC's table uses. */
export function formatLoginStatus(statusClass: number, statusDetail: number): string {
  return ((statusClass << 8) | statusDetail).toString(16).padStart(4, '0');
}
