import { type Capacity, decodeReadCapacity10, decodeReadCapacity16 } from './capacity.js';
import {
  writeInquiryCdb,
  writeModeSense6Cdb,
  writeModeSense10Cdb,
  writeReadCapacity10Cdb,
  writeReadCapacity16Cdb,
} from './cdb.js';
import { type Designator, decodeDesignators } from './designator.js';
import { DEVICE_TYPE_DISK, decodeInquiry, type InquiryData } from './inquiry.js';
import {
  type CachingPage,
  type ControlPage,
  decodeModeSense6,
  decodeModeSense10,
  type ModeData,
  ModePage,
} from './mode.js';
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
} from './vpd.js';

/** What the answers so far have told; `null` is not asked yet, or not there. */
export type FoundFacts = {
  inquiry: InquiryData | null;
  /** Null: page 00h could not be read. */
  supportedPages: readonly number[] | null;
  serial: string;
  designators: readonly Designator[];
  limits: BlockLimits | null;
  characteristics: BlockCharacteristics | null;
  provisioning: BlockProvisioning | null;
  capacity: Capacity | null;
  /** Of the first mode header that arrived. */
  mode: Pick<ModeData, 'writeProtected' | 'dpoFua'> | null;
  caching: CachingPage | null;
  control: ControlPage | null;
};

export function nothingFound(): FoundFacts {
  return {
    inquiry: null,
    supportedPages: [],
    serial: '',
    designators: [],
    limits: null,
    characteristics: null,
    provisioning: null,
    capacity: null,
    mode: null,
    caching: null,
    control: null,
  };
}

/** A part of the facts that a disk may keep to itself, and can be served without. */
export type OptionalPart =
  | 'pages'
  | 'serial'
  | 'identifiers'
  | 'limits'
  | 'characteristics'
  | 'provisioning'
  | 'capacity16'
  | 'mode';

/** One command of those that gather the facts of a disk. */
export type FactQuery = {
  readonly name: string;
  /** Of an answer that the device may refuse or not give, or give wrongly; null: it has to. */
  readonly part: OptionalPart | null;
  /** Bytes the answer may have: the command's expected transfer length. */
  readonly allocationBytes: number;
  /** Writes the command into 16 zeroed bytes. */
  readonly writeCdb: (cdb: Buffer) => void;
  /** Is there a need for it after what has been found? */
  readonly isWanted: (found: FoundFacts) => boolean;
  /** Adds what `data` tell; throws ScsiDataError where they are malformed. */
  readonly decode: (data: Buffer, found: FoundFacts) => void;
};

/** Enough for the version descriptors; small enough for devices that know only one byte. */
const INQUIRY_ALLOCATION_BYTES = 96;
/**
 * Devices of SCSI-2 days look at the low byte of an allocation length only, so most are kept under
 * 256, and none has a low byte of 0: such a device would send nothing.
 */
const VPD_ALLOCATION_BYTES = 252;
/** A device with many ports has many designators. */
const IDENTIFICATION_ALLOCATION_BYTES = 4092;
const CAPACITY_16_ALLOCATION_BYTES = 32;
const MODE_6_ALLOCATION_BYTES = 252;
const MODE_10_ALLOCATION_BYTES = 508;

/** All queries in their order; the caller sends those whose `isWanted` holds when their turn is. */
export const FACT_QUERIES: readonly FactQuery[] = [
  {
    name: 'INQUIRY',
    part: null,
    allocationBytes: INQUIRY_ALLOCATION_BYTES,
    writeCdb: (cdb) => writeInquiryCdb(cdb, null, INQUIRY_ALLOCATION_BYTES),
    isWanted: () => true,
    decode: (data, found) => {
      found.inquiry = decodeInquiry(data);
    },
  },
  {
    ...vpdQuery('pages', VpdPage.supportedPages, (data, found) => {
      found.supportedPages = decodeSupportedPages(data);
    }),
    isWanted: isConnected,
  },
  vpdQuery('serial', VpdPage.unitSerialNumber, (data, found) => {
    found.serial = decodeUnitSerialNumber(data);
  }),
  vpdQuery(
    'identifiers',
    VpdPage.deviceIdentification,
    (data, found) => {
      found.designators = decodeDesignators(data);
    },
    IDENTIFICATION_ALLOCATION_BYTES,
  ),
  vpdQuery('limits', VpdPage.blockLimits, (data, found) => {
    found.limits = decodeBlockLimits(data);
  }),
  vpdQuery('characteristics', VpdPage.blockDeviceCharacteristics, (data, found) => {
    found.characteristics = decodeBlockCharacteristics(data);
  }),
  vpdQuery('provisioning', VpdPage.logicalBlockProvisioning, (data, found) => {
    found.provisioning = decodeBlockProvisioning(data);
  }),
  {
    name: 'READ CAPACITY(16)',
    part: 'capacity16',
    allocationBytes: CAPACITY_16_ALLOCATION_BYTES,
    writeCdb: (cdb) => writeReadCapacity16Cdb(cdb, CAPACITY_16_ALLOCATION_BYTES),
    isWanted: isDisk,
    decode: (data, found) => {
      found.capacity = decodeReadCapacity16(data);
    },
  },
  {
    name: 'READ CAPACITY(10)',
    part: null,
    allocationBytes: 8,
    writeCdb: writeReadCapacity10Cdb,
    isWanted: (found) => isDisk(found) && found.capacity === null,
    decode: (data, found) => {
      found.capacity = decodeReadCapacity10(data);
    },
  },
  mode6Query(ModePage.all, () => true),
  // Some devices know single pages but not the request for all of them.
  mode6Query(ModePage.caching, (found) => found.caching === null),
  mode6Query(ModePage.control, (found) => found.control === null),
  {
    name: 'MODE SENSE(10) page 3f',
    part: 'mode',
    allocationBytes: MODE_10_ALLOCATION_BYTES,
    writeCdb: (cdb) => writeModeSense10Cdb(cdb, ModePage.all, MODE_10_ALLOCATION_BYTES),
    isWanted: (found) => isDisk(found) && found.mode === null,
    decode: (data, found) => addMode(decodeModeSense10(data), found),
  },
];

function isConnected(found: FoundFacts): boolean {
  return found.inquiry?.peripheralQualifier === 0;
}

function isDisk(found: FoundFacts): boolean {
  return isConnected(found) && found.inquiry?.deviceType === DEVICE_TYPE_DISK;
}

/** Pages that say which disk it is: requested even if the list of pages cannot be read. */
const IDENTITY_PAGES: readonly number[] = [VpdPage.unitSerialNumber, VpdPage.deviceIdentification];

function vpdQuery(
  part: OptionalPart,
  page: number,
  decode: (data: Buffer, found: FoundFacts) => void,
  allocationBytes = VPD_ALLOCATION_BYTES,
): FactQuery {
  return {
    name: `VPD page ${page.toString(16).padStart(2, '0')}`,
    part,
    allocationBytes,
    writeCdb: (cdb) => writeInquiryCdb(cdb, page, allocationBytes),
    isWanted: (found) =>
      isConnected(found) && (found.supportedPages ?? IDENTITY_PAGES).includes(page),
    decode,
  };
}

function mode6Query(page: number, isMissing: (found: FoundFacts) => boolean): FactQuery {
  return {
    name: `MODE SENSE(6) page ${page.toString(16).padStart(2, '0')}`,
    part: 'mode',
    allocationBytes: MODE_6_ALLOCATION_BYTES,
    writeCdb: (cdb) => writeModeSense6Cdb(cdb, page, MODE_6_ALLOCATION_BYTES),
    isWanted: (found) => isDisk(found) && isMissing(found),
    decode: (data, found) => addMode(decodeModeSense6(data), found),
  };
}

function addMode(mode: ModeData, found: FoundFacts): void {
  found.mode ??= mode;
  found.caching ??= mode.caching;
  found.control ??= mode.control;
}
