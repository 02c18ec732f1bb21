import type { TargetDisk } from '../disk.js';
import { checkCondition, invalidFieldInCdb } from './sense.js';

const CHANGEABLE = 1;
const SAVED = 3;

/** MODE SENSE(6) and MODE SENSE(10) of SPC-4 §6.11 and §6.12: Caching, Control, or all pages. */
export function modeSense(cdb: Buffer, disk: TargetDisk): Buffer {
  const long = cdb[0] === 0x5a;
  const withoutDescriptor = ((cdb[1] ?? 0) & 0x08) !== 0;
  const pageControl = (cdb[2] ?? 0) >> 6;
  const page = (cdb[2] ?? 0) & 0x3f;
  const subpage = cdb[3] ?? 0;
  if (pageControl === SAVED) throw checkCondition(0x05, 0x39); // SAVING PARAMETERS NOT SUPPORTED
  if (subpage !== 0 && subpage !== 0xff) throw invalidFieldInCdb();
  const pages = modePages(page, pageControl, disk);
  const longLba = long && ((cdb[1] ?? 0) & 0x10) !== 0;
  const descriptor = withoutDescriptor ? Buffer.alloc(0) : blockDescriptor(disk, longLba);
  const body = Buffer.concat([descriptor, pages]);
  const data = long
    ? longHeader(disk, { bodyBytes: body.length, descriptorBytes: descriptor.length, longLba })
    : shortHeader(disk, { bodyBytes: body.length, descriptorBytes: descriptor.length });
  const allocationBytes = long ? cdb.readUInt16BE(7) : (cdb[4] ?? 0);
  return Buffer.concat([data, body]).subarray(0, allocationBytes);
}

/** DEVICE-SPECIFIC PARAMETER (SBC-3 §6.4.1): WP and DPOFUA. */
function deviceSpecific(disk: TargetDisk): number {
  return (disk.readOnly ? 0x80 : 0) | 0x10;
}

function shortHeader(
  disk: TargetDisk,
  sizes: { readonly bodyBytes: number; readonly descriptorBytes: number },
): Buffer {
  return Buffer.from([sizes.bodyBytes + 3, 0, deviceSpecific(disk), sizes.descriptorBytes]);
}

function longHeader(
  disk: TargetDisk,
  sizes: {
    readonly bodyBytes: number;
    readonly descriptorBytes: number;
    readonly longLba: boolean;
  },
): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sizes.bodyBytes + 6, 0);
  header[3] = deviceSpecific(disk);
  header[4] = sizes.longLba && sizes.descriptorBytes > 0 ? 1 : 0;
  header.writeUInt16BE(sizes.descriptorBytes, 6);
  return header;
}

function blockDescriptor(disk: TargetDisk, longLba: boolean): Buffer {
  if (longLba) {
    const descriptor = Buffer.alloc(16);
    descriptor.writeBigUInt64BE(BigInt(disk.blockCount), 0);
    descriptor.writeUInt32BE(disk.blockSizeBytes, 12);
    return descriptor;
  }
  const descriptor = Buffer.alloc(8);
  descriptor.writeUInt32BE(Math.min(disk.blockCount, 0xffffffff), 0);
  descriptor.writeUIntBE(disk.blockSizeBytes, 5, 3);
  return descriptor;
}

function modePages(page: number, pageControl: number, disk: TargetDisk): Buffer {
  switch (page) {
    case 0x08:
      if (!disk.cachingPage) throw invalidFieldInCdb();
      return cachingPage(pageControl, disk);
    case 0x0a:
      return controlPage(pageControl, disk);
    case 0x3f:
      return Buffer.concat([
        disk.cachingPage ? cachingPage(pageControl, disk) : Buffer.alloc(0),
        controlPage(pageControl, disk),
      ]);
    default:
      throw invalidFieldInCdb();
  }
}

/** Caching mode page (SBC-3 §6.4.5): only WCE is ever set, and nothing is changeable. */
function cachingPage(pageControl: number, disk: TargetDisk): Buffer {
  const page = Buffer.alloc(20);
  page[0] = 0x08;
  page[1] = page.length - 2;
  if (pageControl !== CHANGEABLE && disk.writeCacheEnabled) page[2] = 0x04;
  return page;
}

/** Control mode page (SPC-4 §7.5.8): D_SENSE and unrestricted reordering. */
function controlPage(pageControl: number, disk: TargetDisk): Buffer {
  const page = Buffer.alloc(12);
  page[0] = 0x0a;
  page[1] = page.length - 2;
  if (pageControl === CHANGEABLE) return page;
  if (disk.senseFormat === 'descriptor') page[2] = 0x04;
  page[3] = 0x10;
  page.writeUInt16BE(0xffff, 8);
  return page;
}
