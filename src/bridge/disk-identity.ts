import { identifiersByKind, isBlank, isSameUnit } from '../scsi/designator.js';
import type { DiskFacts } from '../scsi/disk-facts.js';

/** What tells a disk from others: the part of its facts that the gate looks at. */
export type DiskIdentity = Pick<
  DiskFacts,
  | 'deviceType'
  | 'identifiers'
  | 'serial'
  | 'vendor'
  | 'product'
  | 'blockSizeBytes'
  | 'blockCount'
  | 'unread'
>;

/** When a disk is compared, and what the operator said of disks that have no identity. */
type GateOccasion = {
  /**
   * Another disk may be at the LUN: after a new login, or an attention that may mean an exchange.
   * False within a session that goes on, as after a change of mode or capacity.
   */
  readonly mayBeExchanged: boolean;
  /** A disk without identity is identified by its make and size. */
  readonly allowUnidentified: boolean;
};

const NO_IDENTITY =
  'the disk reports neither an identifier (VPD page 83h) nor a serial number (VPD page 80h)';
const WHAT_TO_DO =
  'Give the LUN a serial number at the target, or set the option allowUnidentified ' +
  '(--allow-unidentified)';

/** True where nothing that the disk reports tells it from another of the same make and size. */
export function isUnidentified(facts: DiskIdentity): boolean {
  return isBlank(facts.serial) && identifiersByKind(facts.identifiers).size === 0;
}

/** What an operator should know of a disk without identity when it is attached. */
export function unidentifiedWords({ allowUnidentified }: { allowUnidentified: boolean }): string {
  return allowUnidentified
    ? `${NO_IDENTITY}; the option allowUnidentified is set, so after an outage any disk of the ` +
        'same make and size is taken for it'
    : `${NO_IDENTITY}; after an outage it cannot be distinguished from another disk, so held ` +
        `requests will fail and the disk will be removed. ${WHAT_TO_DO}`;
}

/**
 * Is this the disk we knew? Compared before held requests are let go: the identifiers of VPD page
 * 83h and the serial number of page 80h, the make, the block size, and that it has not shrunk. A
 * disk with the same worldwide name (NAA 2h, 5h, 6h and EUI-64 of a company, UUID) may have another
 * serial number and make: a new version of its target may have renamed it.
 * Returns why it is not taken for the same one, as a clause, or null.
 */
export function identityMismatch(
  known: DiskIdentity,
  found: DiskIdentity,
  occasion: GateOccasion,
): string | null {
  const change = differenceOf(known, found, occasion);
  if (change !== null) return `another disk has this LUN now: ${change}`;
  if (!occasion.mayBeExchanged || occasion.allowUnidentified || !isUnidentified(found)) return null;
  return `another disk may have this LUN now: ${NO_IDENTITY}. ${WHAT_TO_DO}`;
}

/**
 * Why this disk cannot be identified now: a clause, or null. `found` has nothing of `known`.
 * Its requests wait then, as another disk may be at the LUN.
 */
export function identityNotRead(
  known: DiskFacts,
  found: DiskFacts,
  { mayBeExchanged, allowUnidentified }: GateOccasion,
): string | null {
  const unread = IDENTITY_PARTS.filter(
    (part) => found.unread?.includes(part) && !isToldByOther(part, known, found),
  );
  if (unread.length === 0 || !mayBeExchanged || hasSameWorldwideName(known, found)) return null;
  if (allowUnidentified && isUnidentified(known)) return null;
  return `its identity cannot be read now (${found.notes.join('; ')})`;
}

/**
 * Why a unit at a target of another name is not proven to be the known one; null if it is. All that
 * it reports of itself has to be equal, not its names only: LIO makes names of the hexadecimal
 * digits of serial numbers, which different ones have in common.
 */
export function otherTargetMismatch(known: DiskIdentity, found: DiskIdentity): string | null {
  if (!isSameUnit(known.identifiers, found.identifiers)) return 'its names are not equal';
  const part = UNIT_PARTS.find((each) => known[each] !== found[each]);
  return part === undefined ? null : `its ${UNIT_WORDS[part]} is different`;
}

const UNIT_WORDS = {
  serial: 'serial number',
  vendor: 'vendor',
  product: 'product',
  deviceType: 'device type',
  blockSizeBytes: 'block size',
} as const;
const UNIT_PARTS = Object.keys(UNIT_WORDS) as readonly (keyof typeof UNIT_WORDS)[];

const IDENTITY_PARTS = ['serial', 'identifiers'] as const;
type IdentityPart = (typeof IDENTITY_PARTS)[number];

/**
 * This part of the identity has never been read, so the other one tells the disk from others, as it
 * does of a disk that has only one; it was read before and now, and is equal.
 */
function isToldByOther(part: IdentityPart, known: DiskIdentity, found: DiskIdentity): boolean {
  if (known.unread?.includes(part) !== true) return false;
  if (part === 'identifiers') return !isBlank(known.serial) && known.serial === found.serial;
  const isNamed = identifiersByKind(known.identifiers).size > 0;
  return isNamed && shareIdentifier(known.identifiers, found.identifiers);
}

/** Kinds of names that a registry keeps from being given twice. */
const WORLDWIDE: ReadonlySet<string> = new Set(['naa', 'eui', 'uuid']);

/** A name that no other disk has is equal: all other data may have been renamed. */
function hasSameWorldwideName(known: DiskIdentity, found: DiskIdentity): boolean {
  const [kind] = commonKind(known.identifiers, found.identifiers) ?? [];
  const isWorldwide = kind !== undefined && WORLDWIDE.has(kind);
  return isWorldwide && shareIdentifier(known.identifiers, found.identifiers);
}

function differenceOf(
  known: DiskIdentity,
  found: DiskIdentity,
  { mayBeExchanged, allowUnidentified }: GateOccasion,
): string | null {
  // What could not be read before is learnt now, unless nothing proves that it is the same disk.
  const isLearnt = (part: IdentityPart) =>
    known.unread?.includes(part) === true &&
    (!mayBeExchanged || allowUnidentified || isToldByOther(part, known, found));
  const differs = (name: string, before: string, now: string) =>
    `its ${name} was ${before} and is ${now} now`;
  if (known.deviceType !== found.deviceType) {
    return differs('device type', String(known.deviceType), String(found.deviceType));
  }
  const isSameName = shareIdentifier(known.identifiers, found.identifiers);
  if (!isSameName && !isLearnt('identifiers')) {
    return differs('identifier', list(known.identifiers), list(found.identifiers));
  }
  const isRenamed = hasSameWorldwideName(known, found);
  if (known.serial !== found.serial && !isRenamed && !isLearnt('serial')) {
    return differs('serial number', `"${known.serial}"`, `"${found.serial}"`);
  }
  const isOtherMake = known.vendor !== found.vendor || known.product !== found.product;
  if (isOtherMake && !isRenamed) {
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
  const common = commonKind(known, found);
  if (common === null) return identifiersByKind(known).size + identifiersByKind(found).size === 0;
  const [, names, others] = common;
  return names.some((name) => others.includes(name));
}

/** The most unique kind that both have, with the names of each; null: there is none. */
function commonKind(known: readonly string[], found: readonly string[]) {
  const now = identifiersByKind(found);
  for (const [kind, names] of identifiersByKind(known)) {
    const others = now.get(kind);
    if (others !== undefined) return [kind, names, others] as const;
  }
  return null;
}

function list(identifiers: readonly string[]): string {
  return identifiers.length === 0 ? 'none' : identifiers.join(', ');
}
