import { type Designator, decodeDesignators } from './designator.js';
import { decodeInquiry, deviceTypeName, type InquiryData } from './inquiry.js';
import {
  type BlockCharacteristics,
  type BlockLimits,
  type BlockProvisioning,
  decodeBlockCharacteristics,
  decodeBlockLimits,
  decodeBlockProvisioning,
  decodeSupportedPages,
  decodeUnitSerialNumber,
  VpdPage,
  vpdPageContent,
} from './vpd.js';

/** INQUIRY answers as plain objects, for people and JSON. `page` is the page code in hex. */
export type InquiryView =
  | ({ readonly kind: 'standard'; readonly deviceTypeName: string } & InquiryData)
  | (VpdHeading & VpdContent);

type VpdHeading = { readonly kind: 'vpd'; readonly page: string; readonly name: string };

type VpdContent =
  | { readonly supportedPages: readonly { readonly page: string; readonly name: string }[] }
  | { readonly serial: string }
  | { readonly designators: readonly Designator[] }
  | BlockLimits
  | BlockCharacteristics
  | BlockProvisioning
  | { readonly hex: string };

const PAGE_NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, 'supported VPD pages'],
  [0x80, 'unit serial number'],
  [0x83, 'device identification'],
  [0x84, 'software interface identification'],
  [0x85, 'management network addresses'],
  [0x86, 'extended INQUIRY data'],
  [0x87, 'mode page policy'],
  [0x88, 'SCSI ports'],
  [0x89, 'ATA information'],
  [0x8a, 'power condition'],
  [0x8f, 'third-party copy'],
  [0xb0, 'block limits'],
  [0xb1, 'block device characteristics'],
  [0xb2, 'logical block provisioning'],
  [0xb3, 'referrals'],
  [0xb6, 'zoned block device characteristics'],
]);

/** A page in words, even if its content has no decoder. */
function vpdPageName(page: number): string {
  return PAGE_NAMES.get(page) ?? (page >= 0xc0 ? 'vendor specific' : 'unknown page');
}

/** The view of an INQUIRY answer; `vpdPage` null: standard data. Throws ScsiDataError. */
export function inquiryView(data: Buffer, vpdPage: number | null): InquiryView {
  if (vpdPage === null) {
    const inquiry = decodeInquiry(data);
    return { kind: 'standard', deviceTypeName: deviceTypeName(inquiry.deviceType), ...inquiry };
  }
  return {
    kind: 'vpd',
    page: hex8(vpdPage),
    name: vpdPageName(vpdPage),
    ...vpdContent(data, vpdPage),
  };
}

function vpdContent(data: Buffer, page: number): VpdContent {
  switch (page) {
    case VpdPage.supportedPages:
      return {
        supportedPages: decodeSupportedPages(data).map((code) => ({
          page: hex8(code),
          name: vpdPageName(code),
        })),
      };
    case VpdPage.unitSerialNumber:
      return { serial: decodeUnitSerialNumber(data) };
    case VpdPage.deviceIdentification:
      return { designators: decodeDesignators(data) };
    case VpdPage.blockLimits:
      return decodeBlockLimits(data);
    case VpdPage.blockDeviceCharacteristics:
      return decodeBlockCharacteristics(data);
    case VpdPage.logicalBlockProvisioning:
      return decodeBlockProvisioning(data);
    default:
      return { hex: vpdPageContent(data, page).toString('hex') };
  }
}

function hex8(value: number): string {
  return value.toString(16).padStart(2, '0');
}
