/**
 * The operational keys of RFC 7143 §13 (Login/Text Operational Text Keys) as the responder sees
 * them: what the target wants, what an offer is answered with, and what is then in force.
 */
export type NegotiationSettings = {
  maxConnections: number;
  initialR2T: boolean;
  immediateData: boolean;
  /** The target's own, declared to the initiator. */
  maxRecvDataSegmentLength: number;
  maxBurstLength: number;
  firstBurstLength: number;
  defaultTime2Wait: number;
  defaultTime2Retain: number;
  maxOutstandingR2T: number;
  dataPDUInOrder: boolean;
  dataSequenceInOrder: boolean;
  /** Values the target accepts; the initiator's order decides between them. */
  headerDigest: readonly string[];
  dataDigest: readonly string[];
  taskReporting: readonly string[];
};

export const DEFAULT_NEGOTIATION: NegotiationSettings = {
  maxConnections: 1,
  initialR2T: false,
  immediateData: true,
  maxRecvDataSegmentLength: 262_144,
  maxBurstLength: 1_048_576,
  firstBurstLength: 262_144,
  defaultTime2Wait: 2,
  defaultTime2Retain: 20,
  maxOutstandingR2T: 4,
  dataPDUInOrder: true,
  dataSequenceInOrder: true,
  headerDigest: ['None', 'CRC32C'],
  dataDigest: ['None', 'CRC32C'],
  taskReporting: ['RFC3720', 'ResponseFence'],
};

/** What is in force; before any negotiation, the defaults that each key has. */
export class Parameters {
  maxConnections = 1;
  initialR2T = true;
  immediateData = true;
  /** Declared by the initiator: the largest data segment it takes. */
  initiatorMaxRecvDataSegmentLength = 8192;
  maxBurstLength = 262_144;
  firstBurstLength = 65_536;
  defaultTime2Wait = 2;
  defaultTime2Retain = 20;
  maxOutstandingR2T = 1;
  dataPDUInOrder = true;
  dataSequenceInOrder = true;
  errorRecoveryLevel = 0;
  headerDigest = 'None';
  dataDigest = 'None';
  taskReporting = 'RFC3720';
}

type NumberField =
  | 'maxConnections'
  | 'maxBurstLength'
  | 'firstBurstLength'
  | 'defaultTime2Wait'
  | 'defaultTime2Retain'
  | 'maxOutstandingR2T';
type FlagField = 'initialR2T' | 'immediateData' | 'dataPDUInOrder' | 'dataSequenceInOrder';

type NumberRow = {
  readonly kind: 'minimum' | 'maximum';
  readonly field: NumberField;
  readonly range: readonly [number, number];
};
type FlagRow = { readonly kind: 'or' | 'and'; readonly field: FlagField };
type ListRow = {
  readonly kind: 'list';
  readonly field: 'headerDigest' | 'dataDigest' | 'taskReporting';
};
type Row = (NumberRow | FlagRow | ListRow) & { readonly sessionWide: boolean };

const LENGTH_RANGE: readonly [number, number] = [512, 0xffffff];
const COUNT_RANGE: readonly [number, number] = [1, 65_535];
const SECONDS_RANGE: readonly [number, number] = [0, 3600];

/** `sessionWide` keys have "Irrelevant when: SessionType=Discovery" in their section. */
const ROWS: ReadonlyMap<string, Row> = new Map<string, Row>([
  ['HeaderDigest', { kind: 'list', field: 'headerDigest', sessionWide: false }],
  ['DataDigest', { kind: 'list', field: 'dataDigest', sessionWide: false }],
  ['TaskReporting', { kind: 'list', field: 'taskReporting', sessionWide: true }],
  ['MaxConnections', numberRow('minimum', 'maxConnections', COUNT_RANGE, true)],
  ['InitialR2T', { kind: 'or', field: 'initialR2T', sessionWide: true }],
  ['ImmediateData', { kind: 'and', field: 'immediateData', sessionWide: true }],
  ['MaxBurstLength', numberRow('minimum', 'maxBurstLength', LENGTH_RANGE, true)],
  ['FirstBurstLength', numberRow('minimum', 'firstBurstLength', LENGTH_RANGE, true)],
  ['DefaultTime2Wait', numberRow('maximum', 'defaultTime2Wait', SECONDS_RANGE, false)],
  ['DefaultTime2Retain', numberRow('minimum', 'defaultTime2Retain', SECONDS_RANGE, false)],
  ['MaxOutstandingR2T', numberRow('minimum', 'maxOutstandingR2T', COUNT_RANGE, true)],
  ['DataPDUInOrder', { kind: 'or', field: 'dataPDUInOrder', sessionWide: true }],
  ['DataSequenceInOrder', { kind: 'or', field: 'dataSequenceInOrder', sessionWide: true }],
]);

function numberRow(
  kind: NumberRow['kind'],
  field: NumberRow['field'],
  range: NumberRow['range'],
  sessionWide: boolean,
): Row {
  return { kind, field, range, sessionWide };
}

/** RFC 7143 §13.25 (Obsoleted Keys): rejected, never "NotUnderstood". */
const OBSOLETE = new Set(['IFMarker', 'OFMarker', 'IFMarkInt', 'OFMarkInt']);

/** The numerical-value syntax of RFC 7143 §6.1 (Text Format): decimal or 0x. */
function parseNumber(value: string): number {
  return /^(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(value) ? Number(value) : Number.NaN;
}

/**
 * Answers one offered operational key and takes it into force; `null` where the key is declared
 * and needs no answer.
 */
export function answerKey(
  pair: readonly [string, string],
  context: {
    readonly settings: NegotiationSettings;
    readonly parameters: Parameters;
    readonly discovery: boolean;
  },
): string | null {
  const [key, value] = pair;
  const { settings, parameters } = context;
  if (OBSOLETE.has(key)) return 'Reject';
  if (key === 'MaxRecvDataSegmentLength') {
    const number = parseNumber(value);
    if (!(number >= LENGTH_RANGE[0] && number <= LENGTH_RANGE[1])) return 'Reject';
    parameters.initiatorMaxRecvDataSegmentLength = number;
    return null;
  }
  if (key === 'ErrorRecoveryLevel') return /^[0-2]$/.test(value) ? '0' : 'Reject';
  if (key === 'iSCSIProtocolLevel') return parseNumber(value) >= 1 ? '1' : 'Reject';
  const row = ROWS.get(key);
  if (row === undefined) return 'NotUnderstood';
  if (context.discovery && row.sessionWide) return 'Irrelevant';
  return answerRow(row, value, settings, parameters);
}

function answerRow(
  row: Row,
  value: string,
  settings: NegotiationSettings,
  parameters: Parameters,
): string {
  switch (row.kind) {
    case 'list': {
      const chosen = value.split(',').find((item) => settings[row.field].includes(item));
      if (chosen === undefined) return 'Reject';
      parameters[row.field] = chosen;
      return chosen;
    }
    case 'or':
    case 'and': {
      if (value !== 'Yes' && value !== 'No') return 'Reject';
      const offered = value === 'Yes';
      const own = settings[row.field];
      const result = row.kind === 'or' ? offered || own : offered && own;
      parameters[row.field] = result;
      return result ? 'Yes' : 'No';
    }
    case 'minimum':
    case 'maximum': {
      const offered = parseNumber(value);
      if (!(offered >= row.range[0] && offered <= row.range[1])) return 'Reject';
      const own = settings[row.field];
      const result = row.kind === 'minimum' ? Math.min(offered, own) : Math.max(offered, own);
      parameters[row.field] = result;
      return String(result);
    }
  }
}
