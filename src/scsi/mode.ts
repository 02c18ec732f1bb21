import { requireBytes, ScsiDataError } from './response-data.js';

/** Mode pages this product reads. */
export const ModePage = { caching: 0x08, control: 0x0a, all: 0x3f } as const;

export type CachingPage = {
  /** WCE: GOOD status of a write may come before the data are on the medium. */
  readonly writeCacheEnabled: boolean;
  /** RCD: reads do not come from the cache. */
  readonly readCacheDisabled: boolean;
};

export type ControlPage = {
  /** D_SENSE: sense data come in descriptor format. */
  readonly descriptorSense: boolean;
  /** SWP: software write protection is on. */
  readonly softwareWriteProtect: boolean;
  /** TAS: tasks another initiator aborts end with TASK ABORTED. */
  readonly taskAbortedStatus: boolean;
};

export type ModeData = {
  /** WP: the medium is write protected. */
  readonly writeProtected: boolean;
  /** DPOFUA: READ and WRITE take the bits DPO and FUA. */
  readonly dpoFua: boolean;
  readonly caching: CachingPage | null;
  readonly control: ControlPage | null;
  /** Codes of the pages (without subpages) that arrived. */
  readonly pages: readonly number[];
};

type ModeHeader = {
  readonly deviceSpecific: number;
  /** Where the first page starts, and where the data end. */
  readonly start: number;
  readonly end: number;
};

/**
 * Mode parameters (SPC-4 §7.5; device-specific byte: SBC-3) of MODE SENSE(6):
 * 0 MODE DATA LENGTH, 2 device-specific (WP 7, DPOFUA 4), 3 BLOCK DESCRIPTOR LENGTH.
 */
export function decodeModeSense6(data: Buffer): ModeData {
  requireBytes(data, 4, 'MODE SENSE(6)');
  const at = (index: number): number => data[index] ?? 0;
  return decodePages(data, {
    deviceSpecific: at(2),
    start: 4 + at(3),
    end: Math.min(data.length, 1 + at(0)),
  });
}

/** As for (6): 0–1 MODE DATA LENGTH, 3 device-specific, 6–7 BLOCK DESCRIPTOR LENGTH. */
export function decodeModeSense10(data: Buffer): ModeData {
  requireBytes(data, 8, 'MODE SENSE(10)');
  return decodePages(data, {
    deviceSpecific: data[3] ?? 0,
    start: 8 + data.readUInt16BE(6),
    end: Math.min(data.length, 2 + data.readUInt16BE(0)),
  });
}

/**
 * Pages: 0 PS (7), SPF (6) and code (5–0), 1 length; with SPF 1 subpage, 2–3 length. A page cut
 * off by the allocation length is left out. ScsiDataError where the block descriptors claim more
 * than there is.
 */
function decodePages(data: Buffer, header: ModeHeader): ModeData {
  const { start, end } = header;
  if (start > end) throw new ScsiDataError(`mode pages start at byte ${start} of ${end}`);
  const pages: number[] = [];
  let caching: CachingPage | null = null;
  let control: ControlPage | null = null;
  for (let at = start; at + 2 <= end; ) {
    const first = data[at] ?? 0;
    const isSubpage = (first & 0x40) !== 0;
    if (isSubpage && at + 4 > end) break;
    const next = isSubpage ? at + 4 + data.readUInt16BE(at + 2) : at + 2 + (data[at + 1] ?? 0);
    if (next > end) break;
    const code = first & 0x3f;
    if (!isSubpage) {
      const page = data.subarray(at, next);
      pages.push(code);
      if (code === ModePage.caching && page.length >= 3) caching = cachingPage(page);
      if (code === ModePage.control && page.length >= 6) control = controlPage(page);
    }
    at = next;
  }
  return {
    writeProtected: (header.deviceSpecific & 0x80) !== 0,
    dpoFua: (header.deviceSpecific & 0x10) !== 0,
    caching,
    control,
    pages,
  };
}

/** Byte 2: WCE (2), RCD (0) (SBC-3, Caching mode page). */
function cachingPage(page: Buffer): CachingPage {
  const flags = page[2] ?? 0;
  return { writeCacheEnabled: (flags & 0x04) !== 0, readCacheDisabled: (flags & 0x01) !== 0 };
}

/** Byte 2: D_SENSE (2); byte 4: SWP (3); byte 5: TAS (6) (SPC-4, Control mode page). */
function controlPage(page: Buffer): ControlPage {
  return {
    descriptorSense: ((page[2] ?? 0) & 0x04) !== 0,
    softwareWriteProtect: ((page[4] ?? 0) & 0x08) !== 0,
    taskAbortedStatus: ((page[5] ?? 0) & 0x40) !== 0,
  };
}
