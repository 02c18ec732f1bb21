/**
 * When each event is sent, and the meaning of its own fields. `time`, `sessionId`, `lun` and `device`
 * mean the same in every event.
 * @type {Readonly<Record<string, { readonly when: string,
 *   readonly fields: Readonly<Record<string, string>> }>>}
 */
export const EVENT_TEXTS = {
  ready: {
    when: '`serve` and `attach` have an export or a device, and requests are accepted.',
    fields: {
      socket: 'Path of the NBD socket.',
      uri: 'NBD URI of the export.',
      sizeBytes: 'Size of the disk.',
      blockSizeBytes: 'Size of a logical block.',
      readOnly: 'Whether writes are refused.',
    },
  },
  sessionState: {
    when: 'A session changes its state: login, loss, reconnect, removal, logout.',
    fields: { from: 'State before.', to: 'State after.', reason: 'Why it changed.' },
  },
  deviceAttached: {
    when: 'A device or export exists, for the first time or after a return.',
    fields: {},
  },
  deviceHeld: {
    when: 'Requests of a LUN are held because the LUN does not serve.',
    fields: { requests: 'Number of the held requests.', bytes: 'Bytes of the held requests.' },
  },
  deviceReleased: { when: 'The LUN serves again, and its held requests are sent.', fields: {} },
  deviceRemoved: {
    when:
      'A device or export is removed: the removal latency has passed, the LUN is another disk, or ' +
      'the session is logged out. Held requests fail with EIO.',
    fields: { reason: 'Why it was removed.' },
  },
  writesReplayed: {
    when: 'Retained writes were written again and flushed.',
    fields: {
      requests: 'Number of the writes.',
      bytes: 'Bytes of the writes.',
      milliseconds: 'How long it took.',
      reason: 'The session was lost, the disk lost its cache, or a new process took over.',
    },
  },
  deviceResized: { when: 'A disk has grown.', fields: { sizeBytes: 'The new size.' } },
  pathState: {
    when: 'A path of a disk changes its state.',
    fields: {
      portal: 'Portal of the path.',
      target: 'Target of the path, if it is not that of the session.',
      from: 'State before.',
      to: 'State after.',
      reason: 'Why it changed.',
    },
  },
  pathSwitched: {
    when: 'Commands of a disk go over another path.',
    fields: { from: 'Path before.', to: 'Path after.', reason: 'Why it changed.' },
  },
  portalChanged: {
    when: 'A session is logged in at another portal than before.',
    fields: { from: 'Portal before.', to: 'Portal after.' },
  },
  loginRefused: {
    when:
      'The target refused a login attempt of a session that reconnects. It is sent for the first ' +
      'refusal and then each time their number has doubled.',
    fields: {
      statusClass: 'Status-Class of the Login Response (RFC 7143 §11.13.5).',
      statusDetail: 'Status-Detail.',
      explanation: 'The status in words.',
    },
  },
  ioError: {
    when: 'A request failed, and its client received an error.',
    fields: {
      operation: 'The request: `read`, `write`, `flush`, …',
      offsetBytes: 'Offset of the request.',
      lengthBytes: 'Length of the request.',
      errno: 'Name of the errno that the client received.',
      reason: 'Why it failed.',
    },
  },
  deviceInUse: {
    when:
      'A device is still in use, and is to be removed (it is served until it is released) or to ' +
      'return after a removal (it returns when it is released).',
    fields: { holders: 'The processes, mounts, swap or dm/md that hold the device.' },
  },
  targetQuirk: {
    when:
      'The target violates RFC 7143 in a way that the session tolerates. It is sent once a session ' +
      'for each quirk.',
    fields: {
      quirk: 'Name of the quirk.',
      section: 'Section of RFC 7143.',
      what: 'What the target does, and what is done about it.',
    },
  },
  warning: { when: 'Something needs the attention of an operator.', fields: { message: 'Text.' } },
  closed: { when: 'A session has ended.', fields: { reason: 'Why it ended.' } },
};

/** @type {Readonly<Record<string, string>>} */
export const EVENT_HEAD = {
  time: 'Time of the event (UTC).',
  sessionId: 'UniqueSessionId of the session.',
  lun: 'LUN of the logical unit.',
  device: 'The device, if there is one.',
};

/** @type {Readonly<Record<string, string>>} */
export const LABEL_TEXTS = {
  session: 'UniqueSessionId of the session.',
  target: 'iSCSI name of the target.',
  lun: 'LUN of the logical unit.',
  state: 'The state; one time series for each state.',
  portal: 'Portal of the path.',
  path: 'UniqueSessionId of the session of the path.',
  worker: 'Number of the worker, from 0 on.',
};
