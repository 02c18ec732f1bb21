import { asciiField, ScsiDataError } from './response-data.js';
import { VpdPage, vpdPageContent } from './vpd.js';

/** Designator types of the device identification page (SPC-4 §7.8.6). */
const TYPE_NAMES = [
  'vendor',
  't10',
  'eui',
  'naa',
  'relative-target-port',
  'target-port-group',
  'logical-unit-group',
  'md5',
  'scsi-name',
  'protocol-port',
  'uuid',
] as const;

/**
 * Kinds of what may name a logical unit, the most unique first: names from worldwide registries,
 * then names of that form which no registry gave, NAA names of local administration (SPC-4
 * §7.8.6), then what vendors make up.
 */
const IDENTIFIER_KINDS = [
  'naa',
  'eui',
  'uuid',
  'scsi-name',
  'unregistered',
  'local',
  't10',
  'md5',
  'vendor',
] as const;
type IdentifierKind = (typeof IDENTIFIER_KINDS)[number];

type DesignatorType = (typeof TYPE_NAMES)[number] | 'unknown';

const ASSOCIATIONS = ['logical-unit', 'target-port', 'target-device', 'reserved'] as const;
const CODE_SETS = ['reserved', 'binary', 'ascii', 'utf-8'] as const;

export type Designator = {
  readonly type: DesignatorType;
  /** What it names; only those of the logical unit say which disk it is. */
  readonly association: (typeof ASSOCIATIONS)[number];
  readonly codeSet: (typeof CODE_SETS)[number] | 'unknown';
  /** e.g. `naa.6001405…`, `eui.…`, `t10.IET     00010001`, `iqn.…`. */
  readonly text: string;
};

const DESIGNATOR_HEADER_BYTES = 4;

/**
 * Designators of page 83h in the order of the device. Each: 0 code set (3–0), 1 association
 * (5–4) and type (3–0), 3 length, then the designator. ScsiDataError where one is cut off, as a
 * part of an identity is none.
 */
export function decodeDesignators(data: Buffer): Designator[] {
  const content = vpdPageContent(data, VpdPage.deviceIdentification);
  if (content.length < data.readUInt16BE(2)) {
    throw new ScsiDataError(`page 83h of ${data.readUInt16BE(2)} bytes was cut off`);
  }
  const designators: Designator[] = [];
  for (let at = 0; at < content.length; ) {
    const length = content[at + 3];
    const start = at + DESIGNATOR_HEADER_BYTES;
    if (length === undefined || start + length > content.length) {
      throw new ScsiDataError(`designator ${designators.length} of page 83h is cut off`);
    }
    const kind = content[at + 1] ?? 0;
    const type = TYPE_NAMES[kind & 0x0f] ?? 'unknown';
    const codeSet = CODE_SETS[(content[at] ?? 0) & 0x0f] ?? 'unknown';
    const bytes = content.subarray(start, start + length);
    designators.push({
      type,
      association: ASSOCIATIONS[(kind >> 4) & 0x03] ?? 'reserved',
      codeSet,
      text: designatorText(type, codeSet, bytes),
    });
    at = start + length;
  }
  return designators;
}

/**
 * Texts of the logical unit's designators, each once, the most unique first: names from a
 * worldwide registry, then those a vendor or an administrator chose, then vendor texts.
 */
export function logicalUnitIdentifiers(designators: readonly Designator[]): string[] {
  const texts = designators
    .filter(({ association, type }) => association === 'logical-unit' && isIdentity(type))
    .map(({ text }) => text);
  return [...new Set(texts)].sort((left, right) => {
    const difference = identifierRank(left) - identifierRank(right);
    if (difference !== 0) return difference;
    return left < right ? -1 : 1;
  });
}

/** Ports and groups are about the way to the unit; the unit keeps its identity without them. */
function isIdentity(type: DesignatorType): boolean {
  return ['naa', 'eui', 'scsi-name', 'uuid', 't10', 'vendor', 'md5'].includes(type);
}

/** Kinds of identifiers by their first letters, the most unique first; none: a SCSI name string. */
const KINDS: readonly (readonly [prefix: string, kind: IdentifierKind, rank: number])[] = [
  ['naa.6', 'naa', 0],
  ['naa.5', 'naa', 1],
  ['naa.2', 'naa', 2],
  ['eui.', 'eui', 3],
  ['uuid.', 'uuid', 4],
  ['naa.', 'local', 6],
  ['t10.', 't10', 7],
  ['md5.', 'md5', 8],
  ['vendor.', 'vendor', 9],
];
const SCSI_NAME_RANK = 5;

/**
 * The form of a registered name with a company identifier of zeros, which no registry gave: tgt
 * names its disks so, by the numbers of target and LUN only.
 */
const WITHOUT_COMPANY = /^(?:naa\.[56]0{6}|naa\.2...0{6}|eui\.0{6})/;

function kindOf(text: string) {
  const found = KINDS.find(([prefix]) => text.startsWith(prefix));
  const kind = found?.[1] ?? 'scsi-name';
  return {
    kind: WITHOUT_COMPANY.test(text) ? 'unregistered' : kind,
    rank: found?.[2] ?? SCSI_NAME_RANK,
  } as const;
}

function identifierRank(text: string): number {
  return kindOf(text).rank;
}

/** T10 VENDOR IDENTIFICATION begins a T10 designator (SPC-4 §7.8.6); alone it names a maker. */
const T10_VENDOR_CHARACTERS = 8;

/**
 * Identifiers of `logicalUnitIdentifiers` by kind, in the order of `IDENTIFIER_KINDS`; those that
 * name nothing (empty, all zeros, a vendor without more, bytes that are all FFh) are left out.
 */
export function identifiersByKind(
  identifiers: readonly string[],
): ReadonlyMap<IdentifierKind, readonly string[]> {
  const named = identifiers.filter((text) => !namesNothing(text));
  const kinds = IDENTIFIER_KINDS.map(
    (kind) => [kind, named.filter((text) => kindOf(text).kind === kind)] as const,
  );
  return new Map(kinds.filter(([, names]) => names.length > 0));
}

/** Behind the vendor; a shorter T10 name is a number that each target of tgt counts anew. */
const T10_NAME_CHARACTERS_MIN = 12;

/**
 * Names by which a logical unit is the same whatever target it is reached over: all of its most
 * unique kind, if that is NAA or EUI-64 of a company, UUID, SCSI name string, or T10 with more than
 * a number behind the vendor. None: nothing proves that two targets have the same unit.
 */
export function unitNames(identifiers: readonly string[]): readonly string[] {
  const [best] = identifiersByKind(identifiers);
  if (best === undefined) return [];
  const [kind, names] = best;
  if (kind === 'naa' || kind === 'eui' || kind === 'uuid' || kind === 'scsi-name') return names;
  const start = 't10.'.length + T10_VENDOR_CHARACTERS;
  const isLong = (text: string) => text.slice(start).trim().length >= T10_NAME_CHARACTERS_MIN;
  return kind === 't10' && names.every(isLong) ? names : [];
}

/** Two targets have the same unit: all names that it has everywhere are equal. */
export function isSameUnit(one: readonly string[], other: readonly string[]): boolean {
  const [names, others] = [unitNames(one), unitNames(other)];
  return (
    names.length > 0 &&
    names.length === others.length &&
    names.every((name) => others.includes(name))
  );
}

function namesNothing(text: string): boolean {
  const { kind } = kindOf(text);
  const name = kind === 'scsi-name' ? text : text.slice(text.indexOf('.') + 1);
  switch (kind) {
    case 'naa':
    case 'unregistered':
    case 'local':
      // The first digit says which form the rest has.
      return isBlank(name.slice(1)) || /^f*$/.test(name.slice(1));
    case 'eui':
    case 'uuid':
    case 'md5':
      return isBlank(name) || /^[f-]*$/.test(name);
    case 't10':
      return isBlank(name.slice(T10_VENDOR_CHARACTERS));
    case 'vendor':
    case 'scsi-name':
      return isBlank(name);
  }
}

/** True for a text of zeros, spaces and dashes only, as unnamed devices have it. */
export function isBlank(text: string): boolean {
  return /^[0 -]*$/.test(text);
}

function designatorText(
  type: DesignatorType,
  codeSet: Designator['codeSet'],
  bytes: Buffer,
): string {
  switch (type) {
    case 'naa':
    case 'eui':
    case 'md5':
      return `${type}.${bytes.toString('hex')}`;
    case 'uuid':
      return `uuid.${uuidText(bytes)}`;
    case 'scsi-name':
      return utf8Text(bytes);
    case 'relative-target-port':
    case 'target-port-group':
    case 'logical-unit-group':
      return bytes.length === 4 ? `${type}.${bytes.readUInt16BE(2)}` : hexText(type, bytes);
    case 't10':
    case 'vendor':
    case 'protocol-port':
    case 'unknown':
      if (codeSet === 'ascii' || type === 't10') {
        return `${type}.${asciiField(bytes, 0, bytes.length)}`;
      }
      return codeSet === 'utf-8' ? `${type}.${utf8Text(bytes)}` : hexText(type, bytes);
  }
}

/** Bytes: 0 UUID kind (7–4), 1 reserved, 2–17 the UUID. */
function uuidText(bytes: Buffer): string {
  const hex = bytes.toString('hex', 2);
  if (hex.length !== 32) return bytes.toString('hex');
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
}

/** UTF-8 up to the first NUL, with control characters replaced as in `asciiField`. */
function utf8Text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  const text = bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
  return text.replace(/\p{C}/gu, '?');
}

function hexText(type: string, bytes: Buffer): string {
  return `${type}.${bytes.toString('hex')}`;
}
