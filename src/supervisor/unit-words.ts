import { isDeepStrictEqual } from 'node:util';
import { isUnidentified } from '../bridge/disk-identity.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import { isSameUnit, unitNames } from '../scsi/designator.js';
import type { DiskFacts } from '../scsi/disk-facts.js';

/** A disk, and where it was found. */
export type UnitPlace = {
  readonly targetName: string;
  readonly sessionId: string;
  readonly disk: FoundDisk;
};

/** They have a name in common; whether they are one disk is not said. */
export function isSame(one: FoundDisk, other: FoundDisk): boolean {
  return isSameUnit(one.facts.identifiers, other.facts.identifiers);
}

/** All that they report about themselves is equal. */
export function isAlike({ facts: one }: FoundDisk, { facts: other }: FoundDisk): boolean {
  const told = ({ identifiers, serial, vendor, product, blockCount }: DiskFacts) => {
    return { identifiers, serial, vendor, product, blockCount };
  };
  return !isUnidentified(one) && isDeepStrictEqual(told(one), told(other));
}

/** Why two disks that seem to be one stay two. */
export function unproven(disk: FoundDisk, targetName: string, like: UnitPlace): string {
  return (
    `LUN ${disk.lun} of ${targetName} reports the same as ${nameOf(like)}, ` +
    'and has no name that only one disk can have (NAA, EUI-64, UUID, SCSI name): they stay two ' +
    'disks. If they are one disk, log out one of them, or use both read-only: two writers ' +
    'corrupt its data'
  );
}

export function noPath(
  disk: FoundDisk,
  targetName: string,
  { owner, why }: { readonly owner: UnitPlace; readonly why: string },
): string {
  return (
    `LUN ${disk.lun} of ${targetName} has the name ` +
    `${unitNames(disk.facts.identifiers).join(', ')} of ${nameOf(owner)}, and is no path of ` +
    `it: ${why}`
  );
}

function nameOf({ disk, targetName, sessionId }: UnitPlace): string {
  return `LUN ${disk.lun} of ${targetName} (session ${sessionId})`;
}
