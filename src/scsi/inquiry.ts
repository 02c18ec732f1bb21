import { asciiField, requireBytes } from './response-data.js';

/** Bytes every standard INQUIRY answer has at least (SPC-4, standard INQUIRY data format). */
export const INQUIRY_BYTES_MIN = 36;
/** Bytes without which nothing is known of it; some devices send no more. */
const INQUIRY_BYTES_NEEDED = 5;

/** PERIPHERAL DEVICE TYPE of the disks this product serves: direct access block device. */
export const DEVICE_TYPE_DISK = 0x00;

const DEVICE_TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, 'disk'],
  [0x01, 'tape'],
  [0x03, 'processor'],
  [0x05, 'CD or DVD'],
  [0x07, 'optical memory'],
  [0x08, 'medium changer'],
  [0x0c, 'storage array controller'],
  [0x0d, 'enclosure services'],
  [0x0e, 'simplified disk'],
  [0x11, 'object storage'],
  [0x14, 'host managed zoned disk'],
  [0x1e, 'well-known logical unit'],
  [0x1f, 'no device'],
]);

export type InquiryData = {
  /** 0: a device exists; 1: none now, but possible; 3: none possible. */
  readonly peripheralQualifier: number;
  readonly deviceType: number;
  readonly removable: boolean;
  /** Version of SPC: 5 SPC-3, 6 SPC-4, 7 SPC-5. */
  readonly version: number;
  readonly responseDataFormat: number;
  /** TPGS: 0 none, 1 implicit, 2 explicit, 3 both kinds of asymmetric access. */
  readonly targetPortGroupSupport: number;
  readonly thirdPartyCopy: boolean;
  readonly protection: boolean;
  /** It takes more than one command at a time: CMDQUE, or BQUE of older standards. */
  readonly commandQueuing: boolean;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  /** Codes of the standards the device claims. */
  readonly versionDescriptors: readonly number[];
};

export function deviceTypeName(deviceType: number): string {
  return DEVICE_TYPE_NAMES.get(deviceType) ?? `device type ${deviceType.toString(16)}h`;
}

/**
 * True for the LUN by which disk arrays of the RDAC family (of LSI, NetApp, Dell, IBM, Lenovo,
 * Fujitsu and others) are managed. It says that it is a disk and has blocks, but what is written
 * there goes to the array itself: Linux makes no disk of it (scsi_devinfo.c, BLIST_NO_ULD_ATTACH).
 */
export function isManagementUnit({ product }: Pick<InquiryData, 'product'>): boolean {
  return product === 'Universal Xport';
}

/**
 * Standard INQUIRY data (SPC-4): 0 qualifier and type, 1 RMB (bit 7), 2 version, 3 response data
 * format, 5 TPGS (5–4), 3PC (3), PROTECT (0), 6 BQUE (7, up to SPC-3), 7 CMDQUE (1), 8–15 vendor,
 * 16–31 product, 32–35 revision, 58–73 version descriptors. ScsiDataError below 5 bytes.
 */
export function decodeInquiry(data: Buffer): InquiryData {
  requireBytes(data, INQUIRY_BYTES_NEEDED, 'INQUIRY data');
  const at = (index: number): number => data[index] ?? 0;
  const end = Math.min(data.length, 5 + at(4), 74);
  const versionDescriptors: number[] = [];
  for (let index = 58; index + 2 <= end; index += 2) {
    const code = data.readUInt16BE(index);
    if (code !== 0) versionDescriptors.push(code);
  }
  return {
    peripheralQualifier: at(0) >> 5,
    deviceType: at(0) & 0x1f,
    removable: (at(1) & 0x80) !== 0,
    version: at(2),
    responseDataFormat: at(3) & 0x0f,
    targetPortGroupSupport: (at(5) >> 4) & 0x03,
    thirdPartyCopy: (at(5) & 0x08) !== 0,
    protection: (at(5) & 0x01) !== 0,
    commandQueuing: (at(7) & 0x02) !== 0 || (at(6) & 0x80) !== 0,
    vendor: asciiField(data, 8, 16),
    product: asciiField(data, 16, 32),
    revision: asciiField(data, 32, 36),
    versionDescriptors,
  };
}
