/**
 * Every text key of RFC 7143 §13 (Login/Text Operational Text Keys) and §12 (iSCSI Security Text
 * Keys and Authentication Methods), one row each, with what the RFC says about it.
 */

export type KeyRule =
  /** Declared, not answered; a number within bounds. */
  | { readonly kind: 'declaredNumber'; readonly min: number; readonly max: number }
  /** Declared, not answered; text of at most `bytesMax` bytes. */
  | { readonly kind: 'declaredText'; readonly bytesMax: number }
  | {
      readonly kind: 'number';
      readonly choose: 'min' | 'max';
      readonly min: number;
      readonly max: number;
    }
  | { readonly kind: 'boolean'; readonly choose: 'and' | 'or' }
  /** The responder takes the first of the proposed values that is in `known`. */
  | { readonly kind: 'list'; readonly known: readonly string[] }
  /** Always answered with Reject. */
  | { readonly kind: 'obsolete' };

/** `any` also in the security stage; `operational` only in the other; `fullFeature` not in login.
 * */
type KeyStage = 'any' | 'operational' | 'fullFeature';

export type KeyRow = {
  /** Section of RFC 7143. */
  readonly section: string;
  readonly rule: KeyRule;
  readonly stage: KeyStage;
  readonly senders: 'both' | 'initiator' | 'target';
  /** Use: LO; carried only by the first connection of a session. */
  readonly leadingOnly: boolean;
  /** "Irrelevant when: SessionType=Discovery". */
  readonly irrelevantInDiscovery: boolean;
  /** In force when nothing is negotiated; empty without a default. */
  readonly defaultValue: string;
  /**
   * Defined after RFC 3720, so a target of that age answers NotUnderstood; for all other rows
   * that answer is a protocol error (RFC 7143 §6.2 (Text Mode Negotiation)).
   */
  readonly later: boolean;
  /** May be declared more than once (RFC 7143 §6.3 (Login Phase)). */
  readonly repeatable: boolean;
};

type RowFacts = Pick<KeyRow, 'section' | 'rule'> & Partial<KeyRow>;

const row = (facts: RowFacts): KeyRow => ({
  stage: 'operational',
  senders: 'both',
  leadingOnly: false,
  irrelevantInDiscovery: false,
  defaultValue: '',
  later: false,
  repeatable: false,
  ...facts,
});

/** Use: LO, irrelevant in discovery sessions: most of the data path's keys. */
const dataKey = (facts: RowFacts): KeyRow =>
  row({ leadingOnly: true, irrelevantInDiscovery: true, ...facts });

const LENGTH_MAX = 2 ** 24 - 1;
const DIGESTS = { kind: 'list', known: ['CRC32C', 'None'] } as const;
const TEXT = { kind: 'declaredText', bytesMax: 255 } as const;
const number = (choose: 'min' | 'max', min: number, max: number): KeyRule => ({
  kind: 'number',
  choose,
  min,
  max,
});

export const KEY_ROWS: ReadonlyMap<string, KeyRow> = new Map([
  // §13.1 (HeaderDigest and DataDigest)
  ['HeaderDigest', row({ section: '13.1', rule: DIGESTS, defaultValue: 'None' })],
  ['DataDigest', row({ section: '13.1', rule: DIGESTS, defaultValue: 'None' })],
  // §13.2 (MaxConnections)
  [
    'MaxConnections',
    dataKey({ section: '13.2', rule: number('min', 1, 65535), defaultValue: '1' }),
  ],
  // §13.3 (SendTargets)
  ['SendTargets', row({ section: '13.3', rule: TEXT, stage: 'fullFeature', senders: 'initiator' })],
  // §13.4 (TargetName): in login only the initiator sends it.
  ['TargetName', row({ section: '13.4', rule: TEXT, stage: 'any', senders: 'initiator' })],
  // §13.5 (InitiatorName)
  ['InitiatorName', row({ section: '13.5', rule: TEXT, stage: 'any', senders: 'initiator' })],
  // §13.6 (TargetAlias)
  ['TargetAlias', row({ section: '13.6', rule: TEXT, stage: 'any', senders: 'target' })],
  // §13.7 (InitiatorAlias)
  ['InitiatorAlias', row({ section: '13.7', rule: TEXT, stage: 'any', senders: 'initiator' })],
  // §13.8 (TargetAddress)
  [
    'TargetAddress',
    row({
      section: '13.8',
      rule: { kind: 'declaredText', bytesMax: 300 },
      stage: 'any',
      senders: 'target',
      repeatable: true,
    }),
  ],
  // §13.9 (TargetPortalGroupTag)
  [
    'TargetPortalGroupTag',
    row({
      section: '13.9',
      rule: { kind: 'declaredNumber', min: 0, max: 65535 },
      stage: 'any',
      senders: 'target',
    }),
  ],
  // §13.10 (InitialR2T)
  [
    'InitialR2T',
    dataKey({ section: '13.10', rule: { kind: 'boolean', choose: 'or' }, defaultValue: 'Yes' }),
  ],
  // §13.11 (ImmediateData)
  [
    'ImmediateData',
    dataKey({ section: '13.11', rule: { kind: 'boolean', choose: 'and' }, defaultValue: 'Yes' }),
  ],
  // §13.12 (MaxRecvDataSegmentLength)
  [
    'MaxRecvDataSegmentLength',
    row({
      section: '13.12',
      rule: { kind: 'declaredNumber', min: 512, max: LENGTH_MAX },
      defaultValue: '8192',
    }),
  ],
  // §13.13 (MaxBurstLength)
  [
    'MaxBurstLength',
    dataKey({ section: '13.13', rule: number('min', 512, LENGTH_MAX), defaultValue: '262144' }),
  ],
  // §13.14 (FirstBurstLength)
  [
    'FirstBurstLength',
    dataKey({ section: '13.14', rule: number('min', 512, LENGTH_MAX), defaultValue: '65536' }),
  ],
  // §13.15 (DefaultTime2Wait)
  [
    'DefaultTime2Wait',
    row({
      section: '13.15',
      rule: number('max', 0, 3600),
      leadingOnly: true,
      defaultValue: '2',
    }),
  ],
  // §13.16 (DefaultTime2Retain)
  [
    'DefaultTime2Retain',
    row({
      section: '13.16',
      rule: number('min', 0, 3600),
      leadingOnly: true,
      defaultValue: '20',
    }),
  ],
  // §13.17 (MaxOutstandingR2T)
  [
    'MaxOutstandingR2T',
    dataKey({ section: '13.17', rule: number('min', 1, 65535), defaultValue: '1' }),
  ],
  // §13.18 (DataPDUInOrder)
  [
    'DataPDUInOrder',
    dataKey({ section: '13.18', rule: { kind: 'boolean', choose: 'or' }, defaultValue: 'Yes' }),
  ],
  // §13.19 (DataSequenceInOrder)
  [
    'DataSequenceInOrder',
    dataKey({ section: '13.19', rule: { kind: 'boolean', choose: 'or' }, defaultValue: 'Yes' }),
  ],
  // §13.20 (ErrorRecoveryLevel)
  [
    'ErrorRecoveryLevel',
    row({ section: '13.20', rule: number('min', 0, 2), leadingOnly: true, defaultValue: '0' }),
  ],
  // §13.21 (SessionType)
  [
    'SessionType',
    row({
      section: '13.21',
      rule: TEXT,
      stage: 'any',
      senders: 'initiator',
      leadingOnly: true,
      defaultValue: 'Normal',
    }),
  ],
  // §13.23 (TaskReporting)
  [
    'TaskReporting',
    dataKey({
      section: '13.23',
      rule: { kind: 'list', known: ['RFC3720', 'ResponseFence', 'FastAbort'] },
      defaultValue: 'RFC3720',
      later: true,
    }),
  ],
  // §13.24 (iSCSIProtocolLevel Negotiation); bounds and result function are RFC 7144's.
  [
    'iSCSIProtocolLevel',
    dataKey({ section: '13.24', rule: number('min', 0, 31), defaultValue: '1', later: true }),
  ],
  // §13.25 (Obsoleted Keys)
  ['IFMarker', row({ section: '13.25', rule: { kind: 'obsolete' } })],
  ['OFMarker', row({ section: '13.25', rule: { kind: 'obsolete' } })],
  ['IFMarkInt', row({ section: '13.25', rule: { kind: 'obsolete' } })],
  ['OFMarkInt', row({ section: '13.25', rule: { kind: 'obsolete' } })],
  // §13.26 (X#NodeArchitecture)
  ['X#NodeArchitecture', row({ section: '13.26', rule: TEXT, later: true, leadingOnly: true })],
]);

/** Keys of the security stage that authentication handles (RFC 7143 §12.1 (AuthMethod)). */
export function isSecurityKey(key: string): boolean {
  return /^(AuthMethod|TargetAuth|(CHAP|SRP|KRB)_.+)$/.test(key);
}
