import type { TargetDisk } from '../disk.js';
import type { UnitAttention } from '../session.js';
import type { TargetOptions } from '../settings.js';
import type { TargetStats } from '../stats.js';
import {
  capacity10,
  capacity16,
  lbaStatus,
  planFlush,
  planRead,
  planUnmap,
  planWrite,
  planWriteSame,
  type ScsiPlan,
} from './scsi-block.js';
import { type InquiryPlace, inquiry } from './scsi-inquiry.js';
import { modeSense } from './scsi-mode.js';
import { planPortGroups, refusalOfPort } from './scsi-port-groups.js';
import { encodeSense, invalidFieldInCdb, invalidOpcode, noSuchLogicalUnit } from './sense.js';

const SCSI = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  inquiry: 0x12,
  modeSense6: 0x1a,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  synchronizeCache10: 0x35,
  writeSame10: 0x41,
  unmap: 0x42,
  modeSense10: 0x5a,
  read16: 0x88,
  write16: 0x8a,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  read12: 0xa8,
  write12: 0xaa,
} as const;

/** What a command can see: its disk, its neighbours, and the attention that was taken for it. */
export type ScsiScene = {
  readonly disk: TargetDisk | null;
  /** First two bytes of the LUN fields. */
  readonly luns: readonly number[];
  readonly place: InquiryPlace;
  readonly stats: TargetStats;
  /** Takes the pending unit attention, if there is one. */
  takeAttention(): UnitAttention | null;
};

/** Key of `luns` for a LUN field, or -1 for an address method unknown here (SAM-5 §4.7). */
export function lunKey(field: Buffer, target: TargetOptions | null): number {
  const first = field.readUInt16BE(0);
  if (field.readUIntBE(2, 6) !== 0) return -1;
  if (target?.lunKeys === 'fields') return first;
  if (first < 0x100) return first;
  return first >> 14 === 1 ? first & 0x3fff : -1;
}

/** First two bytes of the LUN fields a target reports, in order. */
export function reportedLuns(target: TargetOptions): readonly number[] {
  const keys = [...target.luns.keys()].sort((a, b) => a - b);
  if (target.lunKeys === 'fields') return keys;
  return keys.map((lun) => (lun < 0x100 ? lun : 0x4000 | lun));
}

/** Commands that neither meet nor clear a unit attention (SAM-5 §5.14), REQUEST SENSE apart. */
export function passesAttention(opcode: number): boolean {
  return opcode === SCSI.inquiry || opcode === SCSI.reportLuns || opcode === SCSI.requestSense;
}

/**
 * Checks a CDB and says what it wants and does.
 * @throws ScsiError when the command ends in CHECK CONDITION before any data moves.
 */
export function planCommand(cdb: Buffer, scene: ScsiScene): ScsiPlan {
  switch (cdb[0] ?? 0) {
    case SCSI.inquiry:
      return answer(inquiry(cdb, scene.disk, scene.place));
    case SCSI.reportLuns:
      return answer(reportLuns(cdb, scene.luns));
    case SCSI.requestSense:
      return answer(requestSense(cdb, scene));
    default:
      if (scene.disk === null) throw noSuchLogicalUnit();
      return planOverPort(cdb, scene, scene.disk);
  }
}

function planOverPort(cdb: Buffer, scene: ScsiScene, disk: TargetDisk): ScsiPlan {
  const { portGroups, portGroupSettings, portalGroupTag } = scene.place;
  const plan = portGroups && planPortGroups(cdb, portGroups, portGroupSettings);
  if (plan) return plan;
  const refusal = refusalOfPort(portGroups?.get(portalGroupTag));
  if (refusal !== null) throw refusal;
  return planForDisk(cdb, disk, scene.stats);
}

function planForDisk(cdb: Buffer, disk: TargetDisk, stats: TargetStats): ScsiPlan {
  switch (cdb[0] ?? 0) {
    case SCSI.testUnitReady:
      return { dataOutBytes: 0, run: () => null };
    case SCSI.read10:
    case SCSI.read12:
    case SCSI.read16:
      return planRead(cdb, disk);
    case SCSI.write10:
    case SCSI.write12:
    case SCSI.write16:
      return planWrite(cdb, disk, stats);
    case SCSI.synchronizeCache10:
    case SCSI.synchronizeCache16:
      return planFlush(cdb, disk, stats);
    case SCSI.writeSame10:
    case SCSI.writeSame16:
      return planWriteSame(cdb, disk, stats);
    case SCSI.unmap:
      if (!disk.thin) throw invalidOpcode();
      return planUnmap(cdb, disk, stats);
    case SCSI.modeSense6:
    case SCSI.modeSense10:
      return answer(modeSense(cdb, disk));
    case SCSI.readCapacity10:
      return answer(capacity10(disk));
    case SCSI.serviceActionIn16:
      return answer(serviceActionIn(cdb, disk));
    default:
      throw invalidOpcode();
  }
}

function answer(data: Buffer): ScsiPlan {
  return { dataOutBytes: 0, run: () => data };
}

function serviceActionIn(cdb: Buffer, disk: TargetDisk): Buffer {
  const action = (cdb[1] ?? 0) & 0x1f;
  if (action === 0x10) return capacity16(cdb, disk);
  if (action === 0x12) return lbaStatus(cdb, disk);
  throw invalidFieldInCdb();
}

/** REPORT LUNS (SPC-4 §6.33): well-known logical units are not offered. */
function reportLuns(cdb: Buffer, luns: readonly number[]): Buffer {
  const select = cdb[2] ?? 0;
  const allocationBytes = cdb.readUInt32BE(6);
  if (select > 2 || allocationBytes < 16) throw invalidFieldInCdb();
  const listed = select === 1 ? [] : luns;
  const data = Buffer.alloc(8 + listed.length * 8);
  data.writeUInt32BE(listed.length * 8, 0);
  for (const [index, lun] of listed.entries()) {
    data.writeUInt16BE(lun, 8 + index * 8);
  }
  return data.subarray(0, allocationBytes);
}

/** REQUEST SENSE (SPC-4 §6.39): the pending attention, or NO SENSE. */
function requestSense(cdb: Buffer, scene: ScsiScene): Buffer {
  const format = (cdb[1] ?? 0) & 1 ? 'descriptor' : 'fixed';
  if (scene.disk === null) {
    return encodeSense({ key: 0x05, asc: 0x25, ascq: 0, format }).subarray(0, cdb[4] ?? 0);
  }
  const attention = scene.takeAttention();
  const facts = attention === null ? { key: 0, asc: 0, ascq: 0 } : { key: 0x06, ...attention };
  return encodeSense({ ...facts, format }).subarray(0, cdb[4] ?? 0);
}
