import { UsageError } from '../../base/errors.js';
import type { DigestName, TaskReporting } from '../pdu/session-parameters.js';
import type { TextPair } from '../pdu/text.js';
import type { SessionType } from './negotiation.js';
import { KEY_ROWS } from './negotiation-keys.js';

/**
 * What we propose and declare; units and ranges as in RFC 7143 §13 (Login/Text Operational Text
 * Keys).
 */
export type LoginOffer = {
  /** In order of preference; without `None` the digest is required. */
  readonly headerDigest: readonly DigestName[];
  readonly dataDigest: readonly DigestName[];
  readonly maxConnections: number;
  readonly initialR2T: boolean;
  readonly immediateData: boolean;
  readonly maxRecvDataSegmentLength: number;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly maxOutstandingR2T: number;
  readonly defaultTime2Wait: number;
  readonly defaultTime2Retain: number;
  readonly errorRecoveryLevel: number;
  /**
   * Not proposed when absent; must name RFC3720 and ResponseFence (RFC 7143 §13.23
   * (TaskReporting)).
   */
  readonly taskReporting?: readonly TaskReporting[];
  /** Not proposed when absent; 1 is RFC 7143 §13.24 (iSCSIProtocolLevel Negotiation). */
  readonly protocolLevel?: number;
};

/**
 * The pairs that make `offer` known to the target, in the order they are sent. `leading` is false
 * for a connection added to a session. Throws UsageError for a value outside its range.
 */
export function offeredPairs(
  offer: LoginOffer,
  context: { readonly sessionType: SessionType; readonly leading: boolean },
): TextPair[] {
  checkOffer(offer);
  const yesNo = (value: boolean) => (value ? 'Yes' : 'No');
  const discovery = context.sessionType === 'Discovery';
  // RFC 7143 §13.21 (SessionType): a discovery session has ErrorRecoveryLevel 0.
  const errorRecoveryLevel = discovery ? 0 : offer.errorRecoveryLevel;
  // RFC 7143 §13.19 (DataSequenceInOrder): with in-order sequences, recovery allows one R2T.
  const maxOutstandingR2T = errorRecoveryLevel > 0 ? 1 : offer.maxOutstandingR2T;
  const pairs: TextPair[] = [
    ['HeaderDigest', offer.headerDigest.join(',')],
    ['DataDigest', offer.dataDigest.join(',')],
    ['MaxRecvDataSegmentLength', `${offer.maxRecvDataSegmentLength}`],
    ['DefaultTime2Wait', `${offer.defaultTime2Wait}`],
    ['DefaultTime2Retain', `${offer.defaultTime2Retain}`],
    ['ErrorRecoveryLevel', `${errorRecoveryLevel}`],
    ['MaxConnections', `${offer.maxConnections}`],
    ['InitialR2T', yesNo(offer.initialR2T)],
    ['ImmediateData', yesNo(offer.immediateData)],
    ['MaxBurstLength', `${offer.maxBurstLength}`],
  ];
  // RFC 7143 §13.14 (FirstBurstLength): irrelevant where no data goes unsolicited.
  if (!offer.initialR2T || offer.immediateData) {
    pairs.push(['FirstBurstLength', `${offer.firstBurstLength}`]);
  }
  pairs.push(['MaxOutstandingR2T', `${maxOutstandingR2T}`]);
  pairs.push(['DataPDUInOrder', 'Yes'], ['DataSequenceInOrder', 'Yes']);
  if (offer.taskReporting) pairs.push(['TaskReporting', offer.taskReporting.join(',')]);
  if (offer.protocolLevel !== undefined) {
    pairs.push(['iSCSIProtocolLevel', `${offer.protocolLevel}`]);
  }
  return pairs.filter(([key]) => {
    const row = KEY_ROWS.get(key);
    if (!row) return false;
    return !(row.irrelevantInDiscovery && discovery) && (context.leading || !row.leadingOnly);
  });
}

const OFFER_KEYS = {
  maxConnections: 'MaxConnections',
  maxRecvDataSegmentLength: 'MaxRecvDataSegmentLength',
  maxBurstLength: 'MaxBurstLength',
  firstBurstLength: 'FirstBurstLength',
  maxOutstandingR2T: 'MaxOutstandingR2T',
  defaultTime2Wait: 'DefaultTime2Wait',
  defaultTime2Retain: 'DefaultTime2Retain',
  errorRecoveryLevel: 'ErrorRecoveryLevel',
} as const satisfies Partial<Record<keyof LoginOffer, string>>;

function checkOffer(offer: LoginOffer): void {
  for (const [name, key] of Object.entries(OFFER_KEYS) as [keyof typeof OFFER_KEYS, string][]) {
    const rule = KEY_ROWS.get(key)?.rule;
    const value = offer[name];
    if (rule?.kind !== 'number' && rule?.kind !== 'declaredNumber') continue;
    if (!Number.isInteger(value) || value < rule.min || value > rule.max) {
      throw new UsageError(`${name} is ${value}, but must be ${rule.min} to ${rule.max}`);
    }
  }
  // RFC 7143 §13.14 (FirstBurstLength): it must not exceed MaxBurstLength.
  if (offer.firstBurstLength > offer.maxBurstLength) {
    const { firstBurstLength, maxBurstLength } = offer;
    throw new UsageError(
      `firstBurstLength is ${firstBurstLength}, over maxBurstLength, which is ${maxBurstLength}`,
    );
  }
  for (const name of ['headerDigest', 'dataDigest'] as const) {
    const listed = offer[name];
    if (listed.length === 0 || new Set(listed).size < listed.length) {
      throw new UsageError(`${name} must list CRC32C, None or both, each once`);
    }
  }
  // RFC 7143 §13.23 (TaskReporting): these two must be among the values offered.
  const reporting = offer.taskReporting;
  if (reporting && !(reporting.includes('RFC3720') && reporting.includes('ResponseFence'))) {
    throw new UsageError('taskReporting must list RFC3720 and ResponseFence');
  }
}
