import { ProductError, ScsiError, UsageError } from '../base/errors.js';
import { orAborted } from '../base/or-aborted.js';
import { writeInquiryCdb } from '../scsi/cdb.js';
import {
  DEVICE_TYPE_DISK,
  decodeInquiry,
  INQUIRY_BYTES_MIN,
  isManagementUnit,
} from '../scsi/inquiry.js';
import { ScsiDataError } from '../scsi/response-data.js';
import { senseOfCodes } from '../scsi/sense.js';
import { type Attention, isBecomingReady, isServedElsewhere } from '../scsi/sense-table.js';
import { verdictOf } from '../scsi/verdict.js';
import {
  askPatiently,
  CDB_BYTES,
  clearAttentions,
  type FoundDisk,
  readFacts,
  type ScsiExecutor,
} from './disk-probe.js';
import { reportLuns } from './report-luns.js';

/** How long a disk that is becoming ready is waited for at the start, and how often it is asked. */
const READY_MS_MAX = 60_000;
const READY_POLL_MS = 1000;
/** LUN asked for if the user names none and the target lists none: every target has it. */
const LUN_DEFAULT = 0;

export type DiskSearch = {
  /** Told of LUNs that are left out, with the reason, and of what is waited for. */
  readonly onWarning?: (message: string) => void;
  /** Ends the search at once, with its reason. */
  readonly signal?: AbortSignal;
  /** Logs in at another portal; false if `tried` others were all there are. */
  readonly otherPortal?: (tried: number) => Promise<boolean>;
};

/**
 * The disks to serve: the wanted LUNs, each of which has to be a disk that can be used, or every
 * such disk there is. One that is becoming ready is waited for; if all of them are on standby at
 * this portal, the others are tried. Throws UsageError with exit code 21 when there is none, and
 * the error of a wanted LUN.
 */
export async function requireDisks(
  asker: ScsiExecutor,
  wanted: readonly number[] | null,
  search: DiskSearch = {},
): Promise<FoundDisk[]> {
  const { signal, otherPortal = async () => false } = search;
  const until = signal === undefined ? asker : endedBy(asker, signal);
  for (let tried = 0; ; tried += 1) {
    try {
      return await findDisks(until, wanted, search);
    } catch (error) {
      const isElsewhere = isServedElsewhere(attentionOf(error)) && (await otherPortal(tried));
      if (!isElsewhere) throw error;
    }
  }
}

/** Disks at LUNs that are not `known`, without a wait; `onWarning` is as in `DiskSearch`. */
export async function newDisks(
  asker: ScsiExecutor,
  wanted: readonly number[] | null,
  {
    known,
    onWarning,
  }: { readonly known: readonly number[] } & Required<Pick<DiskSearch, 'onWarning'>>,
): Promise<FoundDisk[]> {
  const reported = await reportLuns(asker, { luns: wanted ?? known, onWarning });
  const luns = reported.filter((lun) => !known.includes(lun) && wanted?.includes(lun) !== false);
  const { disks, unusable } = await usableDisks(asker, luns, { onWarning, readyMsMax: 0 });
  for (const { message } of unusable) onWarning(`${message}; it is left out`);
  return disks;
}

async function findDisks(
  asker: ScsiExecutor,
  wanted: readonly number[] | null,
  { onWarning = () => undefined }: DiskSearch,
): Promise<FoundDisk[]> {
  const reported = await reportLuns(asker, { luns: wanted ?? [LUN_DEFAULT], onWarning });
  const how = { onWarning, readyMsMax: READY_MS_MAX };
  if (wanted !== null) {
    const disks: FoundDisk[] = [];
    for (const lun of wanted) {
      disks.push(await wantedDisk(asker, { lun, reported }, how));
      if (reported.includes(lun)) continue;
      const list = reported.join(', ');
      onWarning(`LUN ${lun} is a disk, and the target does not list it; its list is: ${list}`);
    }
    return disks;
  }
  const { disks, unusable } = await usableDisks(asker, reported, how);
  if (disks.length === 0) throw nothingUsable(unusable);
  for (const { message } of unusable) onWarning(`${message}; it is left out`);
  return disks;

  function nothingUsable(errors: readonly ProductError[]): ProductError {
    const standby = errors.find((error) => isServedElsewhere(attentionOf(error)));
    if (standby !== undefined) return standby;
    const none = 'The target has no disk for this initiator';
    const why = errors.map(({ message }) => message).join('; ');
    return noDisk(why === '' ? `${none}; map one to it at the target` : `${none}: ${why}`);
  }
}

type Patience = {
  readonly onWarning: (message: string) => void;
  /** How long a disk may be becoming ready. */
  readonly readyMsMax: number;
};

/** The disk at a LUN as it is now: as `requireDisks`, without a wait until it is ready. */
export function diskNow(asker: ScsiExecutor, lun: number): Promise<FoundDisk> {
  return wantedDisk(asker, { lun, reported: null }, { onWarning: () => undefined, readyMsMax: 0 });
}

/** Throws UsageError 21 if the LUN is no disk, and the device's own error if it cannot be used. */
async function wantedDisk(
  asker: ScsiExecutor,
  { lun, reported }: { readonly lun: number; readonly reported: readonly number[] | null },
  patience: Patience,
): Promise<FoundDisk> {
  const kind = await unitKind(asker, lun);
  if (kind === 'none') {
    const list = reported === null ? '' : `; it reports: ${reported.join(', ') || 'none'}`;
    throw noDisk(`The target has no LUN ${lun} for this initiator${list}`);
  }
  if (kind !== 'disk') {
    throw noDisk(`LUN ${lun} ${NO_DISK[kind]}; \`iscsi-nbd luns\` shows what each LUN is`);
  }
  return usableDisk(asker, lun, patience);
}

async function usableDisks(
  asker: ScsiExecutor,
  luns: readonly number[],
  patience: Patience,
): Promise<{ readonly disks: FoundDisk[]; readonly unusable: readonly ProductError[] }> {
  const disks: FoundDisk[] = [];
  const unusable: ProductError[] = [];
  for (const lun of luns) {
    try {
      const kind = await unitKind(asker, lun);
      if (kind === 'unconnected') throw noDisk(`LUN ${lun} ${NO_DISK.unconnected}`);
      if (kind === 'disk') disks.push(await usableDisk(asker, lun, patience));
    } catch (error) {
      if (!(error instanceof ProductError) || !isOfLun(error)) throw error;
      unusable.push(error);
    }
  }
  return { disks, unusable };
}

/** An error that says something about one LUN, while the link and the target are well. */
export function isOfLun(error: ProductError): boolean {
  return (
    error instanceof ScsiError || error instanceof ScsiDataError || error.code === 'ERR_NO_LUN'
  );
}

/** What is read here and what is written later go to the same field. */
async function usableDisk(
  asker: ScsiExecutor,
  lun: number,
  { onWarning, readyMsMax }: Patience,
): Promise<FoundDisk> {
  asker.lunFields?.fix(lun);
  for (let waitedMs = 0; ; waitedMs += READY_POLL_MS) {
    try {
      const facts = await factsIfReady(asker, lun);
      const field = asker.lunFields?.hexOf(lun);
      return field === undefined ? { lun, facts } : { lun, facts, field };
    } catch (error) {
      const isWaitedFor = isBecomingReady(attentionOf(error)) && waitedMs < readyMsMax;
      if (!isWaitedFor || !(error instanceof ScsiError)) throw error;
      const seconds = readyMsMax / 1000;
      if (waitedMs === 0) onWarning(`${error.message}; waiting up to ${seconds} s for it`);
    }
    await asker.pause(READY_POLL_MS);
  }
}

async function factsIfReady(asker: ScsiExecutor, lun: number): Promise<FoundDisk['facts']> {
  const unheard = () => undefined;
  const { action, words, codes } = await clearAttentions(asker, lun, unheard);
  if (action === 'away') throw new ScsiError(`LUN ${lun} cannot be used: ${words}`, codes);
  try {
    return await readFacts(asker, lun, unheard);
  } catch (error) {
    const message = `LUN ${lun} cannot be used: ${error instanceof Error ? error.message : error}`;
    if (error instanceof ScsiError) throw new ScsiError(message, error, { cause: error });
    if (error instanceof ScsiDataError) throw new ScsiDataError(message, { cause: error });
    throw error;
  }
}

/** What an error of the device asks for; null for others. */
function attentionOf(error: unknown): Attention | null {
  if (!(error instanceof ScsiError)) return null;
  return verdictOf(error.status, senseOfCodes(error)).attention;
}

type UnitKind = 'disk' | 'none' | keyof typeof NO_DISK;

const NO_DISK = {
  management:
    'is the management LUN of a disk array ("Universal Xport"), which holds no data of yours',
  unconnected: 'has no device now (its peripheral qualifier is 001b)',
  other: 'is not a disk',
} as const;

/** PERIPHERAL QUALIFIER (SPC-4, standard INQUIRY data): a device may be there, and is not now. */
const QUALIFIER_UNCONNECTED = 1;

async function unitKind(asker: ScsiExecutor, lun: number): Promise<UnitKind> {
  const cdb = Buffer.alloc(CDB_BYTES);
  writeInquiryCdb(cdb, null, INQUIRY_BYTES_MIN);
  const question = { lun, cdb, direction: 'read', length: INQUIRY_BYTES_MIN } as const;
  const { action, attention, words, codes, data } = await askPatiently(asker, question);
  if (attention === 'lunGone') return 'none';
  if (action !== 'success') {
    throw new ScsiError(`LUN ${lun} cannot be used: INQUIRY failed: ${words}`, codes);
  }
  const inquiry = decodeInquiry(data);
  if (inquiry.peripheralQualifier === QUALIFIER_UNCONNECTED) return 'unconnected';
  if (inquiry.peripheralQualifier !== 0) return 'none';
  if (inquiry.deviceType !== DEVICE_TYPE_DISK) return 'other';
  return isManagementUnit(inquiry) ? 'management' : 'disk';
}

function noDisk(message: string): UsageError {
  return new UsageError(message, { exitCode: 21, code: 'ERR_NO_LUN' });
}

/** The same until the signal comes, which ends every question and pause with its reason. */
function endedBy(asker: ScsiExecutor, signal: AbortSignal): ScsiExecutor {
  return {
    ...(asker.lunFields === undefined ? {} : { lunFields: asker.lunFields }),
    execute: (request) => orAborted(signal, () => asker.execute(request)),
    pause: (ms) => orAborted(signal, () => asker.pause(ms)),
  };
}
