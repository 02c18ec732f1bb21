import { writeInquiryCdb } from '../scsi/cdb.js';
import { decodeDesignators } from '../scsi/designator.js';
import { ScsiDataError } from '../scsi/response-data.js';
import {
  decodeTargetPortGroups,
  type TargetPortGroup,
  writeReportTargetPortGroupsCdb,
} from '../scsi/target-port-groups.js';
import { VpdPage } from '../scsi/vpd.js';
import { askPatiently, CDB_BYTES, type ScsiExecutor } from './disk-probe.js';

const IDENTIFICATION_BYTES = 4092;
/** Some hundred groups; an array has two to eight. */
const GROUPS_BYTES = 4092;

export type PortGroupsAnswer =
  | { readonly groups: readonly TargetPortGroup[] }
  | { readonly error: string };

/** The target port groups of a unit with their states (SPC-4, REPORT TARGET PORT GROUPS). */
export async function readPortGroups(asker: ScsiExecutor, lun: number): Promise<PortGroupsAnswer> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeReportTargetPortGroupsCdb(cdb, GROUPS_BYTES);
  const request = { lun, cdb, direction: 'read', length: GROUPS_BYTES } as const;
  const { action, words, data } = await askPatiently(asker, request);
  if (action !== 'success') return { error: words };
  try {
    return { groups: decodeTargetPortGroups(data) };
  } catch (error) {
    if (!(error instanceof ScsiDataError)) throw error;
    return { error: error.message };
  }
}

/** The group of the port that answers, by its designator of VPD page 83h; null: not told. */
export async function ownPortGroup(asker: ScsiExecutor, lun: number): Promise<number | null> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeInquiryCdb(cdb, VpdPage.deviceIdentification, IDENTIFICATION_BYTES);
  const request = { lun, cdb, direction: 'read', length: IDENTIFICATION_BYTES } as const;
  const { action, data } = await askPatiently(asker, request);
  if (action !== 'success') return null;
  try {
    const found = decodeDesignators(data).find(({ type }) => type === 'target-port-group');
    const digits = /^target-port-group\.(\d{1,5})$/.exec(found?.text ?? '')?.[1];
    return digits === undefined ? null : Number(digits);
  } catch (error) {
    if (!(error instanceof ScsiDataError)) throw error;
    return null;
  }
}
