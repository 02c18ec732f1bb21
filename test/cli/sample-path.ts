import type { PathView } from '../../src/supervisor/path-report.js';

/** A path as the views of a session have it; tests replace what they are about. */
export const SAMPLE_PATH: PathView = {
  lun: 0,
  UniqueSessionId: '0'.repeat(16),
  portal: '192.0.2.1:3260',
  TargetiSCSIName: 'iqn.2001-04.com.example:disk',
  state: 'ready',
  pathState: 'optimized',
  reason: 'the disk was found over it',
  access: 'optimized',
  group: 1,
  preferred: false,
  suspect: false,
  commandsInFlight: 0,
  failures: 0,
  BytesSent: 0,
  BytesReceived: 0,
};
