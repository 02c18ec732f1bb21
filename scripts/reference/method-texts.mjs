/**
 * What each method of the control socket does.
 *
 * - `does`: whole sentences;
 * - `params`: the meaning of each parameter;
 * - `result`: the name of its schema in src/control/control-results.ts, or the meaning of each field;
 * - `errors`: exit status, with `code` where it has one, and the condition.
 * @typedef {object} MethodText
 * @property {string} does
 * @property {Readonly<Record<string, string>>} params
 * @property {string | Readonly<Record<string, string>>} result
 * @property {readonly (readonly [status: number, code: string, condition: string])[]} errors
 */

const SESSION = 'UniqueSessionId of the session.';
const ONE_OR_ALL = 'UniqueSessionId of one session. Without it the result covers all sessions.';
const PORTAL = '`host[:port]` of the portal; the default port is 3260.';
const LUN = 'LUN of the logical unit.';
const OPTIONS =
  'Options of the login by their names in the configuration file ([CONFIGURATION.md](CONFIGURATION.md)).';
/** @type {readonly [number, string, string]} */
const NO_SESSION = [2, 'ERR_NO_SESSION', 'no session has this id'];
/** @type {MethodText['errors']} */
const QUERY_ERRORS = [
  NO_SESSION,
  [1, 'ERR_SCSI', 'the logical unit fails the command'],
  [4, 'ERR_LINK', 'the connection was lost while the command was in flight'],
  [11, 'ERR_LINK', 'the command was not completed within its deadline'],
  [21, 'ERR_SCSI', 'the target does not have the LUN (sense 05h/25h)'],
  [32, 'ERR_LINK', 'the session is away for longer than the removal latency'],
];
/** @type {MethodText['errors']} */
const LOGIN_ERRORS = [
  [4, 'ERR_LINK', 'the connection failed or was lost'],
  [
    5,
    'ERR_LOGIN_REFUSED',
    'the target refused the login for now (status class 3), or broke RFC 7143',
  ],
  [7, 'ERR_USAGE', 'an option is unknown or has a wrong value'],
  [8, 'ERR_LINK', 'the target did not respond within the login timeout'],
  [19, 'ERR_LOGIN_REFUSED', 'the target refused the login permanently (status class 2)'],
  [24, 'ERR_AUTHENTICATION', 'CHAP failed'],
];

const LOGIN_PARAMS = {
  TargetName: 'iSCSI name of the target.',
  TargetPortal: PORTAL,
  SessionType: 'Type of the session, as a word or as the number of MSiSCSI. Default: `data`.',
  PersistentLogin: 'Whether the daemon logs in again at each start. Default: `false`.',
  InitiatorNode: 'iSCSI name of the initiator. Default: the name of this host.',
  Username: 'CHAP user. The secret comes from `chapSecretFile` in `LoginOptions`.',
  LoginOptions: OPTIONS,
};
const PERSISTENT_FIELDS = 'persistent';

/** @type {Readonly<Record<string, MethodText>>} */
export const METHOD_TEXTS = {
  Version: {
    does: 'Reports the version of the protocol and of the daemon.',
    params: {},
    result: {
      protocolVersion:
        'Version of the protocol. It increases if a change can break a client; additions do not count.',
      version: 'Version of the daemon.',
    },
    errors: [],
  },
  SendTargets: {
    does: 'Performs a discovery session (SendTargets=All) and returns the targets of the portal.',
    params: { TargetPortal: PORTAL, LoginOptions: OPTIONS },
    result: 'targets',
    errors: LOGIN_ERRORS,
  },
  LoginToTarget: {
    does:
      'Logs in to a target and makes its LUNs devices (or NBD exports, if the daemon has ' +
      '`--socket-directory`). If a session with the same initiator, target and options exists, ' +
      'the method returns it with `existed: true`. A login to another portal of a target that has ' +
      'a session adds a path to it, unless that has `multipath: off`.',
    params: LOGIN_PARAMS,
    result: 'login',
    errors: [
      ...LOGIN_ERRORS,
      [15, 'ERR_SESSION_EXISTS', 'a session to the target exists with other options'],
      [15, 'ERR_LUN_IN_USE', 'another session of this host may write to a LUN'],
      [21, 'ERR_NO_LUN', 'a LUN of `luns` does not exist, or no LUN can be used'],
      [27, '', 'the kernel has no NBD driver, or a parameter is not supported'],
    ],
  },
  LogoutFromTarget: {
    does:
      'Removes the devices of a session and logs out. If the id is that of one path of several, ' +
      'only this path is logged out.',
    params: {
      UniqueSessionId: SESSION,
      force: 'Also logs out if a device is in use, or of a Boot session. Default: `false`.',
    },
    result: {},
    errors: [
      NO_SESSION,
      [10, 'ERR_FLUSH_FAILED', 'acknowledged writes are lost (reported once)'],
      [28, 'ERR_DEVICE_IN_USE', 'a device is mounted or held, and `force` is not set'],
      [28, 'ERR_BOOT_SESSION', 'the session is a Boot session, and `force` is not set'],
      [28, 'ERR_ONLY_PATH', 'a disk has no other path that can be used'],
      [28, 'ERR_SESSION_LEFT', 'the daemon is ending and leaves the session to the next one'],
    ],
  },
  AddConnectionToSession: {
    does: 'Is not supported: a session has one connection.',
    params: {},
    result: {},
    errors: [[27, 'ERR_NOT_SUPPORTED', 'always']],
  },
  RemoveConnectionFromSession: {
    does: 'Is not supported: a session has one connection.',
    params: {},
    result: {},
    errors: [[27, 'ERR_NOT_SUPPORTED', 'always']],
  },
  AddPersistentLogin: {
    does: 'Stores a login that the daemon performs at each start. It does not log in now.',
    params: {
      ...LOGIN_PARAMS,
      DryRun: 'Checks the parameters and stores nothing. Default: `false`.',
    },
    result: PERSISTENT_FIELDS,
    errors: [
      [7, 'ERR_USAGE', 'an option is unknown or has a wrong value'],
      [15, 'ERR_SESSION_EXISTS', 'a login to the target exists with other options'],
      [27, 'ERR_NOT_SUPPORTED', 'a parameter is not supported'],
    ],
  },
  PersistentLogins: {
    does: 'Lists the stored logins and the state of their sessions.',
    params: {},
    result: 'persistentList',
    errors: [],
  },
  RemovePersistentLogin: {
    does: 'Removes a stored login. The session itself stays until it is logged out.',
    params: { UniqueSessionId: 'UniqueSessionId of the stored login.' },
    result: { removed: 'Number of the logins that were removed.' },
    errors: [[21, 'ERR_NO_PERSISTENT_LOGIN', 'no stored login has this id']],
  },
  ScsiInquiry: {
    does: 'Sends INQUIRY to a logical unit.',
    params: {
      UniqueSessionId: SESSION,
      Lun: LUN,
      InquiryFlags: '`1`: request the VPD page `PageCode` (EVPD). Default: `0`.',
      PageCode: 'Code of the VPD page. Default: `0`.',
    },
    result: {
      ScsiStatus: '`0`: GOOD. Other statuses are errors.',
      ResponseBuffer: 'Bytes of the response, in hexadecimal.',
      view: 'The decoded response, as `iscsi-nbd inquiry --json` prints it.',
    },
    errors: QUERY_ERRORS,
  },
  ScsiReadCapacity: {
    does: 'Sends READ CAPACITY(16), or (10) if the logical unit does not support (16).',
    params: { UniqueSessionId: SESSION, Lun: LUN },
    result: {
      ScsiStatus: '`0`: GOOD. Other statuses are errors.',
      ResponseBuffer: 'Bytes of the response, in hexadecimal.',
      view: 'The decoded response, as `iscsi-nbd capacity --json` prints it.',
    },
    errors: QUERY_ERRORS,
  },
  ScsiReportLuns: {
    does: 'Sends REPORT LUNS to the target of a session.',
    params: { UniqueSessionId: SESSION },
    result: {
      ScsiStatus: '`0`: GOOD. Other statuses are errors.',
      ResponseBuffer: 'Bytes of the response, in hexadecimal.',
      view: 'The decoded list of LUNs.',
    },
    errors: QUERY_ERRORS,
  },
  InitiatorSessionInfo: {
    does: 'Describes sessions: identity, state, connection, keys, options, devices and paths.',
    params: { UniqueSessionId: ONE_OR_ALL },
    result: 'sessions',
    errors: [NO_SESSION],
  },
  SessionStatistics: {
    does: 'Returns the counters and latencies of sessions.',
    params: { UniqueSessionId: ONE_OR_ALL },
    result: 'statisticsList',
    errors: [NO_SESSION],
  },
  Devices: {
    does: 'Lists each LUN of each session with its device and state. Removed LUNs stay in the list.',
    params: {},
    result: 'devices',
    errors: [],
  },
  Rescan: {
    does: 'Requests REPORT LUNS and probes the LUNs again: new, missing and resized ones are found.',
    params: { UniqueSessionId: ONE_OR_ALL },
    result: 'rescan',
    errors: [NO_SESSION],
  },
  SetSessionOption: {
    does:
      'Changes an option of a running session. The value holds until the logout or the end of the ' +
      'daemon.',
    params: {
      UniqueSessionId: SESSION,
      option: 'Name of the option, as in the file or as a flag without dashes in front.',
      value: 'The value, in a form that the configuration file accepts.',
    },
    result: 'changed',
    errors: [
      NO_SESSION,
      [7, 'ERR_USAGE', 'the option is unknown, or its value is wrong'],
      [27, 'ERR_NOT_LIVE', 'a running session cannot change the option'],
    ],
  },
  SubscribeEvents: {
    does:
      'Subscribes this connection to events. Each event follows as a notification with the method ' +
      '`event`; its `params` are the event ([EVENTS-AND-METRICS.md](EVENTS-AND-METRICS.md)). A ' +
      'second call changes nothing. A client that leaves 4 MiB unread is disconnected.',
    params: {},
    result: {},
    errors: [],
  },
};

/** The conditions of the codes of JSON-RPC. */
export const RPC_CODE_TEXTS = {
  parseError: 'The line is not JSON.',
  invalidRequest: 'The line is not a JSON-RPC 2.0 request, is a batch, or is too long.',
  methodNotFound: 'There is no such method.',
  invalidParams: 'A parameter is missing, unknown or of a wrong type.',
  internalError: 'A fault of the daemon. Its log has the details.',
  failed: 'The method failed. `data` is an object of the schema `error`, with the exit status.',
  tooManyClients: 'The daemon has as many clients as it accepts.',
};
