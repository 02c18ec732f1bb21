import type { DiskFacts } from '../scsi/disk-facts.js';

/**
 * Is this the disk we knew? Compared before held requests are let go: the identifiers of VPD page
 * 83h and the serial number of page 80h, the block size, and that it has not shrunk. Returns why
 * not, in words, or null.
 */
export function whyAnotherDisk(known: DiskFacts, found: DiskFacts): string | null {
  const differs = (name: string, before: string, now: string) =>
    `its ${name} was ${before} and is ${now} now`;
  if (known.deviceType !== found.deviceType) {
    return differs('device type', String(known.deviceType), String(found.deviceType));
  }
  if (known.identifiers.length > 0 || found.identifiers.length > 0) {
    const isSame = known.identifiers.some((identifier) => found.identifiers.includes(identifier));
    if (!isSame) {
      return differs('identifier', list(known.identifiers), list(found.identifiers));
    }
  }
  if (known.serial !== found.serial) {
    return differs('serial number', `"${known.serial}"`, `"${found.serial}"`);
  }
  if (known.vendor !== found.vendor || known.product !== found.product) {
    const before = `${known.vendor} ${known.product}`;
    return differs('make', before, `${found.vendor} ${found.product}`);
  }
  if (known.blockSizeBytes !== found.blockSizeBytes) {
    return differs('block size', `${known.blockSizeBytes}`, `${found.blockSizeBytes}`);
  }
  if (found.blockCount < known.blockCount) {
    return differs('size', `${known.blockCount} blocks`, `only ${found.blockCount}`);
  }
  return null;
}

function list(identifiers: readonly string[]): string {
  return identifiers.length === 0 ? 'none' : identifiers.join(', ');
}
