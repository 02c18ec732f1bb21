import { identifiersByKind, isBlank } from '../scsi/designator.js';
import type { DiskFacts } from '../scsi/disk-facts.js';

/** When a disk is compared, and what the operator said of disks that have no identity. */
type GateOccasion = {
  /**
   * Another disk may be at the LUN: after a new login, or an attention that may mean an exchange.
   * False within a session that goes on, as after a change of mode or capacity.
   */
  readonly mayBeExchanged: boolean;
  /** A disk without identity is known again by its make and size. */
  readonly allowUnidentified: boolean;
};

const NO_IDENTITY =
  'the disk reports neither an identifier (VPD page 83h) nor a serial number (VPD page 80h)';
const WHAT_TO_DO =
  'Give the LUN a serial number at the target, or set the option allowUnidentified ' +
  '(--allow-unidentified)';

/** True where nothing that the disk reports tells it from another of the same make and size. */
export function isUnidentified(facts: DiskFacts): boolean {
  return isBlank(facts.serial) && identifiersByKind(facts.identifiers).size === 0;
}

/** What an operator should know of a disk without identity when it is attached. */
export function unidentifiedWords({ allowUnidentified }: { allowUnidentified: boolean }): string {
  return allowUnidentified
    ? `${NO_IDENTITY}; the option allowUnidentified is set, so after an outage any disk of the ` +
        'same make and size is taken for it'
    : `${NO_IDENTITY}; after an outage it cannot be told from another disk, so held requests ` +
        `will fail and the disk will be removed. ${WHAT_TO_DO}`;
}

/**
 * Is this the disk we knew? Compared before held requests are let go: the identifiers of VPD page
 * 83h and the serial number of page 80h, the make, the block size, and that it has not shrunk.
 * Returns why it is not taken for the same one, as a clause, or null.
 */
export function identityMismatch(
  known: DiskFacts,
  found: DiskFacts,
  occasion: GateOccasion,
): string | null {
  const change = differenceOf(known, found);
  if (change !== null) return `another disk has this LUN now: ${change}`;
  if (!occasion.mayBeExchanged || occasion.allowUnidentified || !isUnidentified(found)) return null;
  return `another disk may have this LUN now: ${NO_IDENTITY}. ${WHAT_TO_DO}`;
}

function differenceOf(known: DiskFacts, found: DiskFacts): string | null {
  const differs = (name: string, before: string, now: string) =>
    `its ${name} was ${before} and is ${now} now`;
  if (known.deviceType !== found.deviceType) {
    return differs('device type', String(known.deviceType), String(found.deviceType));
  }
  if (!shareIdentifier(known.identifiers, found.identifiers)) {
    return differs('identifier', list(known.identifiers), list(found.identifiers));
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

/**
 * The most unique kind of identifier that both have decides; an equal one of a weaker kind, as a
 * text that a vendor gives to all its disks, does not outweigh it. Without a kind in common only
 * disks without any identifier are alike.
 */
function shareIdentifier(known: readonly string[], found: readonly string[]): boolean {
  const before = identifiersByKind(known);
  const now = identifiersByKind(found);
  for (const [kind, names] of before) {
    const others = now.get(kind);
    if (others !== undefined) return names.some((name) => others.includes(name));
  }
  return before.size === 0 && now.size === 0;
}

function list(identifiers: readonly string[]): string {
  return identifiers.length === 0 ? 'none' : identifiers.join(', ');
}
