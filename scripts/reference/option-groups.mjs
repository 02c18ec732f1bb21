/**
 * The sections of docs/CONFIGURATION.md.
 * @type {readonly { readonly title: string,
 *   readonly options: readonly import('../../src/config/config-options.js').OptionName[] }[]}
 */
export const OPTION_GROUPS = [
  { title: 'Names', options: ['initiatorName', 'sessionType', 'luns'] },
  {
    title: 'CHAP',
    options: [
      'chapUser',
      'chapSecretFile',
      'targetChapUser',
      'targetChapSecretFile',
      'chapAlgorithms',
    ],
  },
  {
    title: 'Outages',
    options: [
      'removalLatencySeconds',
      'reconnectIntervalSeconds',
      'loginTimeoutSeconds',
      'noopIntervalSeconds',
      'noopTimeoutSeconds',
    ],
  },
  {
    title: 'Command timeouts',
    options: ['taskTimeoutSeconds', 'abortTimeoutSeconds', 'logicalUnitResetTimeoutSeconds'],
  },
  {
    title: 'Portals and paths',
    options: [
      'portals',
      'multipath',
      'sessionsPerPortal',
      'pathPolicy',
      'pathCheckSeconds',
      'alua',
    ],
  },
  {
    title: 'Write safety',
    options: ['readOnly', 'shared', 'allowUnidentified', 'retainWrites', 'retainedBytesMax'],
  },
  { title: 'Bounds', options: ['queueDepthMax', 'heldBytesMax'] },
  { title: 'Process', options: ['cpuAffinity', 'busyPollMicroseconds', 'workers'] },
  {
    title: 'Login keys (RFC 7143 chapter 13)',
    options: [
      'headerDigest',
      'dataDigest',
      'maxConnections',
      'errorRecoveryLevel',
      'initialR2T',
      'immediateData',
      'firstBurstLength',
      'maxBurstLength',
      'maxRecvDataSegmentLength',
      'maxOutstandingR2T',
    ],
  },
];
