export type DigestName = 'None' | 'CRC32C';
export type TaskReporting = 'RFC3720' | 'ResponseFence' | 'FastAbort';

/**
 * What a login settled; lengths in bytes, both times in seconds, all of RFC 7143 §13 (Login/Text
 * Operational Text Keys).
 */
export type SessionParameters = {
  readonly headerDigest: DigestName;
  readonly dataDigest: DigestName;
  readonly maxConnections: number;
  readonly initialR2T: boolean;
  readonly immediateData: boolean;
  /** The longest data segment the target may send. */
  readonly initiatorMaxRecvDataSegmentLength: number;
  /** The longest data segment we may send. */
  readonly targetMaxRecvDataSegmentLength: number;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly maxOutstandingR2T: number;
  readonly defaultTime2Wait: number;
  readonly defaultTime2Retain: number;
  readonly errorRecoveryLevel: number;
  readonly dataPduInOrder: boolean;
  readonly dataSequenceInOrder: boolean;
  readonly taskReporting: TaskReporting;
  readonly protocolLevel: number;
  /** Null when the target gave none, as a discovery session may. */
  readonly targetPortalGroupTag: number | null;
  /** For display; control characters are replaced. */
  readonly targetAlias: string | null;
};
