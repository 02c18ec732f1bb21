import { setTimeout as sleep } from 'node:timers/promises';
import { ProductError, ScsiError, UsageError } from '../base/errors.js';
import type { InformationalSession, ScsiRequest } from '../config/contract.js';
import { testUnitReady } from '../lun/disk-probe.js';
import { REPORT_LUNS_WELL_KNOWN } from '../lun/report-luns.js';
import { decodeReadCapacity10, decodeReadCapacity16 } from '../scsi/capacity.js';
import {
  writeInquiryCdb,
  writeReadCapacity10Cdb,
  writeReadCapacity16Cdb,
  writeReportLunsCdb,
} from '../scsi/cdb.js';
import type { LunField } from '../scsi/command.js';
import {
  DEVICE_TYPE_DISK,
  decodeInquiry,
  deviceTypeName,
  isManagementUnit,
} from '../scsi/inquiry.js';
import { type InquiryView, inquiryView } from '../scsi/inquiry-view.js';
import {
  decodeReportLuns,
  lunEquals,
  lunField,
  lunFieldToHex,
  lunNumber,
  lunToText,
} from '../scsi/lun.js';
import { cdbName, Opcode } from '../scsi/opcodes.js';
import { isUnsupported, parseSense, SenseKey, senseOfCodes } from '../scsi/sense.js';
import { isBecomingReady, isServedElsewhere } from '../scsi/sense-table.js';
import { ScsiStatus } from '../scsi/status.js';
import { replyToWords, verdictOf } from '../scsi/verdict.js';
import { VpdPage } from '../scsi/vpd.js';

/**
 * The questions a person asks a target: SendScsiInquiry, SendScsiReportLuns and
 * SendScsiReadCapacity. Each answer has the bytes as they came and what they mean; the meaning
 * is what `--json` prints, so its field names are a promise.
 */

const CDB_BYTES = 16;
const INQUIRY_BYTES = 255;
/**
 * VPD pages have a 16-bit length; one of 4 KiB and more is not known to exist. The low byte is not
 * 0, as some devices look at no other.
 */
const VPD_BYTES = 4092;
const CAPACITY_10_BYTES = 8;
const CAPACITY_16_BYTES = 32;
const REPORT_LUNS_BYTES = 8 + 8 * 256;
/** 65536 LUNs: far more than any target has. */
const REPORT_LUNS_BYTES_MAX = 8 + 8 * 65_536;
/** A unit attention each for power on, LUNs and capacity, and some pauses to become ready. */
const ATTEMPTS_MAX = 8;
const PAUSE_MS = 500;
/** How long the units of a session may become ready: as long as they may when they are served. */
const BECOMING_READY_MS_MAX = 60_000;
/** Since when a unit of the session has said that it becomes ready. */
const becomesReadySince = new WeakMap<InformationalSession, number>();
/** PERIPHERAL QUALIFIER (SPC-4, standard INQUIRY data): no logical unit can be at this LUN. */
const NO_UNIT_QUALIFIER = 3;

export type { InquiryView } from '../scsi/inquiry-view.js';

/** A LUN by its number, or by the field that the target reported. */
type LunPlace = number | { readonly lun: number; readonly field: LunField };

export type Answer<View> = { readonly raw: Buffer; readonly view: View };

/** What may be given for `--vpd` in place of a number. */
const VPD_PAGE_WORDS: ReadonlyMap<string, number> = new Map([
  ['supported', VpdPage.supportedPages],
  ['serial', VpdPage.unitSerialNumber],
  ['identification', VpdPage.deviceIdentification],
  ['limits', VpdPage.blockLimits],
  ['characteristics', VpdPage.blockDeviceCharacteristics],
  ['provisioning', VpdPage.logicalBlockProvisioning],
]);

export type CapacityView = {
  readonly lun: number;
  readonly blockCount: number;
  readonly blockSizeBytes: number;
  readonly sizeBytes: number;
  readonly physicalBlockSizeBytes: number;
  readonly lowestAlignedBlock: number;
  readonly protectionType: number;
  readonly thinProvisioned: boolean;
  readonly unmappedReadsZero: boolean;
};

export type LunView = {
  /** The number, or the text of a LUN that is not a plain number. */
  readonly lun: number | string;
  readonly type: string;
  readonly vendor: string;
  readonly product: string;
  readonly sizeBytes?: number;
  /** Why a part is missing. */
  readonly error?: string;
};

/**
 * Standard INQUIRY data (`vpdPage` null) or a VPD page. Throws ScsiError when the device refuses,
 * as it does for a page it does not have.
 */
export async function queryInquiry(
  session: InformationalSession,
  place: LunPlace,
  vpdPage: number | null,
): Promise<Answer<InquiryView>> {
  const length = vpdPage === null ? INQUIRY_BYTES : VPD_BYTES;
  const raw = await read(session, place, length, (cdb) => writeInquiryCdb(cdb, vpdPage, length));
  return { raw, view: inquiryView(raw, vpdPage) };
}

/** `83`, `0x83`, `83h` or `identification`; page numbers are hexadecimal. Throws UsageError. */
export function parseVpdPage(text: string): number {
  const named = VPD_PAGE_WORDS.get(text.toLowerCase());
  if (named !== undefined) return named;
  const digits = /^(?:0x)?([0-9a-f]{1,2})h?$/i.exec(text)?.[1];
  if (digits !== undefined) return Number.parseInt(digits, 16);
  throw new UsageError(
    `--vpd '${text}' is no page: give two hexadecimal digits, e.g. 83, or one of ` +
      `${[...VPD_PAGE_WORDS.keys()].join(', ')}.`,
  );
}

/** READ CAPACITY(16), or (10) where a device is too old or small to know it. */
export async function queryCapacity(
  session: InformationalSession,
  place: LunPlace,
): Promise<Answer<CapacityView>> {
  const { lun } = placeOf(place);
  const raw = await readCapacity(session, place);
  const capacity =
    raw.length <= CAPACITY_10_BYTES ? decodeReadCapacity10(raw) : decodeReadCapacity16(raw);
  if (capacity === null) {
    throw new UsageError(`LUN ${lun} has over 2 TiB but does not know READ CAPACITY(16).`, {
      exitCode: 1,
    });
  }
  const { blockCount, blockSizeBytes } = capacity;
  const view = {
    lun,
    blockCount,
    blockSizeBytes,
    sizeBytes: blockCount * blockSizeBytes,
    physicalBlockSizeBytes: blockSizeBytes * 2 ** capacity.physicalBlockExponent,
    lowestAlignedBlock: capacity.lowestAlignedLba,
    protectionType: capacity.protectionType,
    thinProvisioned: capacity.provisioningManaged,
    unmappedReadsZero: capacity.readsZero,
  };
  return { raw, view };
}

/** The LUNs a target reports, as bytes and as fields. */
export async function queryReportLuns(
  session: InformationalSession,
): Promise<Answer<readonly LunField[]>> {
  let field = lunField(0);
  const ask = (bytes: number) =>
    read(session, { lun: 0, field }, bytes, (cdb) => writeReportLunsCdb(cdb, bytes));
  let raw = await ask(REPORT_LUNS_BYTES).catch((error: unknown) => {
    if (!isDeviceFault(error)) throw error;
    field = REPORT_LUNS_WELL_KNOWN;
    // If there is no such LUN either, the first answer says more.
    return ask(REPORT_LUNS_BYTES).catch((again: unknown) => {
      throw isDeviceFault(again) ? error : again;
    });
  });
  const { neededBytes } = decodeReportLuns(raw);
  if (neededBytes > REPORT_LUNS_BYTES) {
    raw = await ask(Math.min(notRound(neededBytes), REPORT_LUNS_BYTES_MAX));
  }
  const view = decodeReportLuns(raw).luns;
  session.lunFields?.reported(view);
  return { raw, view };
}

/** An allocation length of at least `bytes` whose low byte is not 0. */
function notRound(bytes: number): number {
  return bytes % 256 === 0 ? bytes + 8 : bytes;
}

/** A LUN with what it is and its size. A LUN that does not answer is listed with the reason. */
export async function describeLun(
  session: InformationalSession,
  field: LunField,
): Promise<LunView> {
  const number = lunNumber(field);
  const nothing = { type: 'unknown', vendor: '', product: '' };
  if (number === null) return { lun: lunToText(field), ...nothing };
  const used = session.lunFields?.fieldOf(number) ?? field;
  const lun = lunEquals(field, used) ? number : `0x${lunFieldToHex(field)}`;
  const place = { lun: number, field };
  let known: LunView = { lun, ...nothing };
  try {
    const { raw } = await queryInquiry(session, place, null);
    const view = decodeInquiry(raw);
    const { vendor, product } = view;
    const isManagement = view.deviceType === DEVICE_TYPE_DISK && isManagementUnit(view);
    const type = isManagement ? 'array management' : deviceTypeName(view.deviceType);
    known = { lun, type, vendor, product };
    if (view.deviceType !== DEVICE_TYPE_DISK || view.peripheralQualifier !== 0) return known;
    if (isManagement) return known;
    const capacity = await queryCapacity(session, place);
    return { ...known, sizeBytes: capacity.view.sizeBytes };
  } catch (error) {
    if (!isDeviceFault(error)) throw error;
    return { ...known, error: error.message };
  }
}

async function readCapacity(session: InformationalSession, place: LunPlace): Promise<Buffer> {
  try {
    return await read(session, place, CAPACITY_16_BYTES, (cdb) =>
      writeReadCapacity16Cdb(cdb, CAPACITY_16_BYTES),
    );
  } catch (error) {
    if (!(error instanceof ScsiError) || !isUnsupported(senseOfCodes(error))) throw error;
    return read(session, place, CAPACITY_10_BYTES, writeReadCapacity10Cdb);
  }
}

/**
 * Sends a command until it succeeds or its verdict is final, and at most `ATTEMPTS_MAX` times, but
 * for a minute while the unit becomes ready; one that is on standby here is queried at each portal.
 * Where no LUN is at the usual field of the number, the target may report it with another.
 */
async function read(
  session: InformationalSession,
  place: LunPlace,
  length: number,
  write: (cdb: Buffer) => void,
): Promise<Buffer> {
  const cdb = Buffer.alloc(CDB_BYTES);
  write(cdb);
  const request: ScsiRequest = { ...placeOf(place), cdb, direction: 'read', length };
  let isTested = false;
  let portalsTried = 0;
  for (let attempt = 1; ; attempt += 1) {
    const { status, data, sense } = await session.execute(request);
    const parsed = parseSense(sense);
    const verdict = verdictOf(status, parsed);
    const isNoUnit = cdb[0] === Opcode.inquiry && (data[0] ?? 0) >> 5 === NO_UNIT_QUALIFIER;
    const isRefused = isNoUnit || parsed.senseKey === SenseKey.illegalRequest;
    if (isRefused && (await learnsField(session, request))) continue;
    if (status === ScsiStatus.good || verdict.action === 'success') {
      if (data.length > 0 || isTested) return data;
      // CLARiiON has no data for a new session before it has seen this command.
      isTested = true;
      await session.execute({ ...placeOf(place), ...testUnitReady(request.lun) });
      continue;
    }
    const isElsewhere = verdict.action === 'away' && isServedElsewhere(verdict.attention);
    if (isElsewhere && (await session.otherPortal?.(portalsTried)) === true) {
      portalsTried += 1;
      continue;
    }
    const becomesReady = verdict.action === 'away' && isBecomingReady(verdict.attention);
    const isLast = becomesReady
      ? mayBeWaitedForMs(session) <= 0
      : verdict.action === 'fail' || verdict.action === 'away' || attempt >= ATTEMPTS_MAX;
    if (isLast) {
      throw new ScsiError(`LUN ${request.lun}: ${cdbName(cdb)}: ${replyToWords(status, parsed)}`, {
        status,
        senseKey: parsed.senseKey,
        asc: parsed.asc,
        ascq: parsed.ascq,
      });
    }
    if (becomesReady || verdict.action === 'retryAfterDelay') await sleep(PAUSE_MS);
  }
}

/** What is left of the time that all units of the session together have to become ready. */
function mayBeWaitedForMs(session: InformationalSession): number {
  const nowMs = performance.now();
  const sinceMs = becomesReadySince.get(session) ?? nowMs;
  becomesReadySince.set(session, sinceMs);
  return sinceMs + BECOMING_READY_MS_MAX - nowMs;
}

function placeOf(place: LunPlace): { readonly lun: number; readonly field?: LunField } {
  return typeof place === 'number' ? { lun: place } : place;
}

/** Asks for the LUNs, once a session. True where one has the number, and not the usual field. */
async function learnsField(session: InformationalSession, request: ScsiRequest): Promise<boolean> {
  const { lunFields } = session;
  if (lunFields === undefined || lunFields.isReported || request.field !== undefined) return false;
  try {
    await queryReportLuns(session);
  } catch (error) {
    if (!isDeviceFault(error)) throw error;
    return false;
  }
  return lunFields.hexOf(request.lun) !== undefined;
}

/** True for what one LUN may do wrong while the target and the link are well. */
function isDeviceFault(error: unknown): error is ProductError {
  if (error instanceof ScsiError) return true;
  return error instanceof ProductError && error.code === 'ERR_SCSI_DATA';
}
