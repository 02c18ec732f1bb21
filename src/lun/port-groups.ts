import { writeInquiryCdb } from '../scsi/cdb.js';
import { type Designator, decodeDesignators } from '../scsi/designator.js';
import { decodeInquiry, INQUIRY_BYTES_MIN } from '../scsi/inquiry.js';
import { ScsiDataError } from '../scsi/response-data.js';
import { SenseKey } from '../scsi/sense.js';
import {
  decodeTargetPortGroups,
  type TargetPortGroup,
  type TargetPortGroups,
  writeReportTargetPortGroupsCdb,
} from '../scsi/target-port-groups.js';
import { VpdPage } from '../scsi/vpd.js';
import { askPatiently, CDB_BYTES, type Readiness, type ScsiExecutor } from './disk-probe.js';

const IDENTIFICATION_BYTES = 4092;
/** Some hundred groups; an array has two to eight, with some ports each. */
const GROUPS_BYTES = 4092;
/** A list that is longer than the first allocation is requested again, up to this. */
const GROUPS_BYTES_MAX = 64 << 10;
/** Bit 1 of TPGS: the states can be set by command. */
const EXPLICIT = 2;

export type PortGroupsAnswer =
  | (Pick<TargetPortGroups, 'groups' | 'transitionSeconds'> & {
      /** The target knows the extended header; ask so again. */
      readonly isExtended: boolean;
    })
  | {
      readonly error: string;
      /** `unsupported`: it never tells; `transition`: not before the states have changed. */
      readonly why: 'unsupported' | 'transition' | 'failed';
    };

/**
 * The target port groups of a unit with their states (SPC-4, REPORT TARGET PORT GROUPS), with the
 * extended header if the target knows it. One that does not answers INVALID FIELD IN CDB; some
 * arrays answer another ILLEGAL REQUEST.
 */
export async function readPortGroups(
  asker: ScsiExecutor,
  lun: number,
  isExtended = true,
): Promise<PortGroupsAnswer> {
  let told = await ask(asker, { lun, isExtended, allocationBytes: GROUPS_BYTES });
  const { action, attention, words, codes, data } = told;
  if (action === 'success') {
    try {
      const first = decodeTargetPortGroups(data, isExtended);
      const allocationBytes = Math.min(first.totalBytes, GROUPS_BYTES_MAX);
      if (allocationBytes <= GROUPS_BYTES) return { ...first, isExtended };
      told = await ask(asker, { lun, isExtended, allocationBytes });
      if (told.action !== 'success') return { ...first, isExtended };
      return { ...decodeTargetPortGroups(told.data, isExtended), isExtended };
    } catch (error) {
      if (!(error instanceof ScsiDataError)) throw error;
      return { error: error.message, why: 'failed' };
    }
  }
  if (action === 'fail' && codes.senseKey === SenseKey.illegalRequest) {
    if (isExtended) return readPortGroups(asker, lun, false);
    return { error: words, why: 'unsupported' };
  }
  return { error: words, why: attention === 'accessTransition' ? 'transition' : 'failed' };
}

function ask(
  asker: ScsiExecutor,
  how: { readonly lun: number; readonly isExtended: boolean; readonly allocationBytes: number },
): Promise<Readiness & { readonly data: Buffer }> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeReportTargetPortGroupsCdb(cdb, how);
  return askPatiently(asker, {
    lun: how.lun,
    cdb,
    direction: 'read',
    length: how.allocationBytes,
  });
}

/** The port that answers, as the unit names it. */
export type OwnPort = {
  /** Its group can be made optimized by SET TARGET PORT GROUPS. */
  readonly canBeSet: boolean;
  /** Target port group by its designator (type 5); null: not told. */
  readonly group: number | null;
  /** Relative target port identifier (type 4); null: not told. */
  readonly port: number | null;
};

const NO_GROUPS: OwnPort = { canBeSet: false, group: null, port: null };

/**
 * The port that answers, if the unit says in INQUIRY (TPGS) that its ports have states, by the
 * designators of VPD page 83h. Null if it cannot be read now.
 */
export async function readOwnPort(asker: ScsiExecutor, lun: number): Promise<OwnPort | null> {
  const standard = await inquire(asker, { lun, page: null, bytes: INQUIRY_BYTES_MIN });
  if (standard === null) return null;
  try {
    const { targetPortGroupSupport: support } = decodeInquiry(standard);
    if (support === 0) return NO_GROUPS;
    const page = VpdPage.deviceIdentification;
    const data = await inquire(asker, { lun, page, bytes: IDENTIFICATION_BYTES });
    if (data === null) return null;
    const ofPort = decodeDesignators(data).filter(
      ({ association }) => association === 'target-port',
    );
    return {
      canBeSet: (support & EXPLICIT) !== 0,
      group: numberOf(ofPort, 'target-port-group'),
      port: numberOf(ofPort, 'relative-target-port'),
    };
  } catch (error) {
    if (!(error instanceof ScsiDataError)) throw error;
    return NO_GROUPS;
  }
}

/** Its group among those that are reported: by its number, or as the one that lists the port. */
export function groupOfPort(
  { group, port }: OwnPort,
  groups: readonly TargetPortGroup[],
): TargetPortGroup | undefined {
  if (group !== null) return groups.find((each) => each.group === group);
  return port === null ? undefined : groups.find(({ ports }) => ports.includes(port));
}

async function inquire(
  asker: ScsiExecutor,
  what: { readonly lun: number; readonly page: number | null; readonly bytes: number },
): Promise<Buffer | null> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeInquiryCdb(cdb, what.page, what.bytes);
  const request = { lun: what.lun, cdb, direction: 'read', length: what.bytes } as const;
  const { action, data } = await askPatiently(asker, request);
  return action === 'success' ? data : null;
}

function numberOf(designators: readonly Designator[], type: Designator['type']): number | null {
  const text = designators.find((each) => each.type === type)?.text ?? '';
  const digits = /\.(\d{1,5})$/.exec(text)?.[1];
  return digits === undefined ? null : Number(digits);
}
