import { productError } from '../base/errors.js';
import { isUnidentified } from '../bridge/disk-identity.js';
import { askPatiently, CDB_BYTES, type ScsiExecutor } from '../lun/disk-probe.js';
import { diskNow, isOfLun } from '../lun/find-disks.js';
import { groupOfPort, readOwnPort, readPortGroups } from '../lun/port-groups.js';
import { writeInquiryCdb } from '../scsi/cdb.js';
import { identifiersByKind } from '../scsi/designator.js';
import { CACHE_NOT_TOLD, type DiskFacts } from '../scsi/disk-facts.js';
import {
  DEVICE_TYPE_DISK,
  decodeInquiry,
  deviceTypeName,
  type InquiryData,
  isManagementUnit,
} from '../scsi/inquiry.js';
import type { DiskCheck, LunCheck } from './check-report.js';

const INQUIRY_BYTES = 96;
/** TPGS of the standard INQUIRY data (SPC-4). */
const CHANGED_BY = ['none', 'target', 'initiator', 'both'] as const;
const NO_LIMIT = 0xffff_ffff;
const WORLDWIDE = ['naa', 'eui', 'uuid', 'scsi-name'] as const;

/** The LUN, and its facts if it is a disk that can be used. */
export type CheckedLun = { readonly view: LunCheck; readonly facts: DiskFacts | null };

/** Asks one LUN all about itself; every command only reads. Rejects only with the link's errors. */
export async function checkLun(asker: ScsiExecutor, lun: number): Promise<CheckedLun> {
  const nothing = { lun, type: 'unknown', vendor: '', product: '' };
  let known: Omit<LunCheck, 'disk' | 'error'> = nothing;
  try {
    const inquiry = await inquiryOf(asker, lun);
    if (inquiry !== null) {
      const { deviceType, vendor, product, peripheralQualifier } = inquiry;
      const isDisk = deviceType === DEVICE_TYPE_DISK && !isManagementUnit(inquiry);
      const type = isManagementUnit(inquiry) ? 'array management' : deviceTypeName(deviceType);
      known = { lun, type, vendor, product };
      const isOther = !isDisk && peripheralQualifier === 0;
      if (isOther) return { view: { ...known, disk: null, error: null }, facts: null };
    }
    const { facts } = await diskNow(asker, lun);
    const portGroups = await portGroupsOf(asker, lun, inquiry?.targetPortGroupSupport ?? 0);
    return { view: { ...known, disk: diskView(facts, portGroups), error: null }, facts };
  } catch (error) {
    const fault = productError(error);
    if (!isOfLun(fault)) throw fault;
    return { view: { ...known, disk: null, error: fault.message }, facts: null };
  }
}

async function inquiryOf(asker: ScsiExecutor, lun: number): Promise<InquiryData | null> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeInquiryCdb(cdb, null, INQUIRY_BYTES);
  const request = { lun, cdb, direction: 'read', length: INQUIRY_BYTES } as const;
  const { action, data } = await askPatiently(asker, request);
  return action === 'success' ? decodeInquiry(data) : null;
}

function diskView(facts: DiskFacts, portGroups: DiskCheck['portGroups']): DiskCheck {
  const { blockSizeBytes, blockCount, limits, thin } = facts;
  const inBytes = (blocks: number) => blocks * blockSizeBytes;
  return {
    revision: facts.revision,
    sizeBytes: inBytes(blockCount),
    blockSizeBytes,
    physicalBlockSizeBytes: inBytes(2 ** facts.physicalBlockExponent),
    readOnly: facts.readOnly,
    identity: identityOf(facts),
    writeCache: writeCacheOf(facts),
    fua: facts.dpoFua,
    commandQueuing: facts.commandQueuing,
    discard: {
      unmap: thin.unmap,
      writeSame: thin.writeSame16Unmap,
      granularityBytes: inBytes(limits.unmapGranularity),
      unmapBytesMax: limits.unmapLbaMax === NO_LIMIT ? null : inBytes(limits.unmapLbaMax),
      readsZero: thin.readsZero,
    },
    transferBytesMax:
      limits.maxTransferBlocks === NO_LIMIT ? null : inBytes(limits.maxTransferBlocks),
    rotational: facts.rotational,
    portGroups,
    notes: [...facts.notes],
    speed: [],
    speedError: null,
  };
}

function identityOf(facts: DiskFacts): DiskCheck['identity'] {
  if (isUnidentified(facts)) return { strength: 'none', name: null };
  const kinds = identifiersByKind(facts.identifiers);
  const name = [...kinds.values()][0]?.[0];
  if (name === undefined) return { strength: 'serial', name: facts.serial };
  const isWorldwide = WORLDWIDE.some((kind) => kinds.has(kind));
  return { strength: isWorldwide ? 'worldwide' : 'chosen', name };
}

function writeCacheOf(facts: DiskFacts): DiskCheck['writeCache'] {
  if (facts.unread?.includes('mode') === true) return 'notRead';
  if (facts.notes.includes(CACHE_NOT_TOLD)) return 'notTold';
  return facts.writeCacheEnabled ? 'volatile' : 'none';
}

async function portGroupsOf(
  asker: ScsiExecutor,
  lun: number,
  support: number,
): Promise<DiskCheck['portGroups']> {
  const changedBy = CHANGED_BY[support] ?? 'none';
  if (changedBy === 'none') return { changedBy, groups: [], error: null };
  const told = await readPortGroups(asker, lun);
  if ('error' in told) return { changedBy, groups: [], error: told.error };
  const port = await readOwnPort(asker, lun);
  const ours = port === null ? null : (groupOfPort(port, told.groups)?.group ?? null);
  const groups = told.groups.map((group) => ({
    ...group,
    ports: [...group.ports],
    isOurs: ours === null ? null : group.group === ours,
  }));
  return { changedBy, groups, error: null };
}
