import type { TargetDisk } from '../disk.js';
import type { PortGroup, PortGroupSettings } from '../settings.js';
import { invalidFieldInCdb } from './sense.js';

/** What INQUIRY says besides the disk itself. */
export type InquiryPlace = {
  readonly targetName: string;
  readonly portalGroupTag: number;
  readonly portGroups?: Map<number, PortGroup>;
  readonly portGroupSettings: PortGroupSettings;
};

/** INQUIRY of SPC-4 §6.6; `disk` is null for a LUN that does not exist. */
export function inquiry(cdb: Buffer, disk: TargetDisk | null, place: InquiryPlace): Buffer {
  const evpd = (cdb[1] ?? 0) & 1;
  const page = cdb[2] ?? 0;
  const allocationBytes =
    disk?.shortAllocationLength === true ? (cdb[4] ?? 0) : cdb.readUInt16BE(3);
  if ((cdb[1] ?? 0) & 0x02 || (evpd === 0 && page !== 0)) throw invalidFieldInCdb();
  const data = evpd ? vitalPage(page, disk, place) : standardInquiry(disk, place);
  return data.subarray(0, allocationBytes);
}

/** Left-aligned ASCII padded with spaces (SPC-4 §4.3.1). */
function ascii(text: string, length: number): Buffer {
  return Buffer.from(text.slice(0, length).padEnd(length), 'latin1');
}

function standardInquiry(disk: TargetDisk | null, place: InquiryPlace): Buffer {
  const data = Buffer.alloc(74);
  data[0] = disk === null ? 0x7f : disk.peripheralQualifier << 5;
  data[2] = 0x06; // VERSION: SPC-4
  data[3] = 0x12; // HISUP, RESPONSE DATA FORMAT 2
  data[4] = data.length - 5;
  // TPGS: the target changes the states, and initiators may.
  if (place.portGroups !== undefined)
    data[5] = place.portGroupSettings.canBeSet === true ? 0x30 : 0x10;
  data[7] = disk?.commandQueuing === false ? 0 : 0x02; // CMDQUE
  ascii(disk?.vendor ?? '', 8).copy(data, 8);
  ascii(disk?.product ?? '', 16).copy(data, 16);
  ascii(disk?.revision ?? '', 4).copy(data, 32);
  // Version descriptors: SAM-5, iSCSI, SPC-4, SBC-3.
  for (const [index, version] of [0x00a0, 0x0960, 0x0460, 0x04c0].entries()) {
    data.writeUInt16BE(version, 58 + index * 2);
  }
  return data;
}

function vitalPage(page: number, disk: TargetDisk | null, place: InquiryPlace): Buffer {
  const peripheral = disk === null ? 0x7f : 0x00;
  if (page === 0x00) {
    return wrapPage(peripheral, page, Buffer.from(supportedPages(disk)));
  }
  if (disk === null || !supportedPages(disk).includes(page)) throw invalidFieldInCdb();
  switch (page) {
    case 0x80:
      return wrapPage(peripheral, page, Buffer.from(disk.serial, 'latin1'));
    case 0x83:
      return wrapPage(peripheral, page, identification(disk, place));
    case 0xb0:
      return wrapPage(peripheral, page, blockLimits(disk));
    case 0xb1:
      return wrapPage(peripheral, page, characteristics());
    case 0xb2:
      return wrapPage(peripheral, page, provisioning(disk));
    default:
      throw invalidFieldInCdb();
  }
}

function supportedPages(disk: TargetDisk | null): readonly number[] {
  if (disk === null) return [0x00];
  return [0x00, ...(disk.serial === '' ? [] : [0x80]), 0x83, 0xb0, 0xb1, 0xb2];
}

function wrapPage(peripheral: number, page: number, body: Buffer): Buffer {
  const head = Buffer.from([peripheral, page, 0, 0]);
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([head, body]);
}

/** One designation descriptor (SPC-4 §7.8.6.1): code set, association and type, length, value. */
function designator(codeSet: number, kind: number, value: Buffer): Buffer {
  const protocolISCSI = kind & 0x30 ? 0x50 : 0x00;
  const protocolValid = kind & 0x30 ? 0x80 : 0x00;
  return Buffer.concat([
    Buffer.from([protocolISCSI | codeSet, protocolValid | kind, 0, value.length]),
    value,
  ]);
}

const BINARY = 1;
const ASCII = 2;
const UTF8 = 3;
const NONE = Buffer.alloc(0);

/** Device Identification (SPC-4 §7.8.6): T10 vendor ID, NAA, relative port, target port name. */
function identification(disk: TargetDisk, place: InquiryPlace): Buffer {
  const t10 = Buffer.concat([ascii(disk.vendor, 8), Buffer.from(disk.serial, 'latin1')]);
  const tag = place.portalGroupTag;
  const port = `${place.targetName},t,0x${tag.toString(16).padStart(4, '0')}`;
  // A SCSI name string ends in a null and is a multiple of four long (SPC-4 §7.8.6.11).
  const portName = Buffer.alloc(Math.min(252, (Buffer.byteLength(port) + 4) & ~3));
  portName.write(port, 0, 'utf8');
  return Buffer.concat([
    disk.serial === '' ? NONE : designator(ASCII, 0x01, t10),
    disk.naa === '' ? NONE : designator(BINARY, 0x03, Buffer.from(disk.naa, 'hex')),
    designator(BINARY, 0x14, Buffer.from([0, 0, tag >> 8, tag & 0xff])),
    place.portGroups === undefined || place.portGroupSettings.isGroupUntold === true
      ? NONE
      : designator(BINARY, 0x15, Buffer.from([0, 0, tag >> 8, tag & 0xff])),
    designator(UTF8, 0x18, portName),
  ]);
}

/** Block Limits (SBC-3 §6.6.3). */
function blockLimits(disk: TargetDisk): Buffer {
  const body = Buffer.alloc(60);
  const limits = disk.limits;
  body.writeUInt16BE(Math.max(1, 4096 / disk.blockSizeBytes), 2);
  body.writeUInt32BE(limits.transferBlocksMax, 4);
  body.writeUInt32BE(limits.optimalTransferBlocks, 8);
  if (disk.thin) {
    body.writeUInt32BE(limits.unmapBlocksMax, 16);
    body.writeUInt32BE(limits.unmapDescriptorsMax, 20);
    body.writeUInt32BE(limits.unmapGranularityBlocks, 24);
    body.writeUInt32BE((limits.unmapAlignmentBlocks | 0x80000000) >>> 0, 28); // UGAVALID
  }
  body.writeBigUInt64BE(BigInt(limits.writeSameBlocksMax), 32);
  return body;
}

/** Block Device Characteristics (SBC-3 §6.6.2): a medium that does not turn. */
function characteristics(): Buffer {
  const body = Buffer.alloc(60);
  body.writeUInt16BE(1, 0);
  return body;
}

/** Logical Block Provisioning (SBC-3 §6.6.4): LBPU, LBPWS, LBPWS10, LBPRZ; thin. */
function provisioning(disk: TargetDisk): Buffer {
  return disk.thin ? Buffer.from([0, 0xe4, 0x02, 0]) : Buffer.alloc(4);
}
