import * as z from 'zod';
import { formatPortal, readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault, iscsiNamesEqual } from '../iscsi/login/target-name.js';
import { FILE_SYSTEM_TYPES, FSCK_POLICIES } from './file-system.js';
import { VolumeError } from './volume-error.js';

const LUN_MAX = 0xff_ffff;
const PORTALS_MAX = 64;
const MOUNT_OPTIONS_MAX = 64;
/** The same one letter by letter once it is read, so that 192.0.2.1 and 192.0.2.1:3260 are one. */
const portal = z
  .string()
  .max(512)
  .transform((text, context) => {
    const found = readPortal(text);
    if (!('fault' in found)) return formatPortal(found);
    context.addIssue(found.fault);
    return z.NEVER;
  });

/**
 * Words of mount(8) that make another mount of it than that of the disk at the path: its record
 * would not be true, and no call could end it.
 */
const OTHER_MOUNT =
  /^(?:loop|offset|sizelimit|remount|bind|rbind|move|r?(?:shared|private|slave|unbindable))(?:=|$)/;

/** One mount option: `mount -o` cuts at commas, so each is a word of its own. */
const mountOption = z
  .string()
  .min(1)
  .max(1024)
  .regex(/^[^,\s\p{Cc}]+$/u, 'a mount option has neither commas nor spaces')
  .refine((word) => !OTHER_MOUNT.test(word), 'loop, remount, bind and the like are not possible');

/** Which disk a volume is and how it is used: all that is written down of it, and no secret. */
export const volumeSpecSchema = z.strictObject({
  targetName: z
    .string()
    .max(223)
    .refine((name) => iscsiNameFault(name) === null, 'the target name is not an iSCSI name'),
  lun: z.number().int().min(0).max(LUN_MAX),
  /** The first is logged in to; the others are its substitutes. */
  portals: z.array(portal).min(1).max(PORTALS_MAX),
  /** Null: a block device, which is not mounted. */
  fsType: z.enum(FILE_SYSTEM_TYPES).nullable(),
  fsck: z.enum(FSCK_POLICIES),
  mountOptions: z.array(mountOption).max(MOUNT_OPTIONS_MAX),
  readOnly: z.boolean(),
  /** The disk has to have this serial number or identifier; null: the first one seen is kept. */
  diskId: z.string().min(1).max(512).nullable(),
  /** Options of the login by their names; the daemon judges them. */
  options: z.record(z.string().max(64), z.union([z.string().max(4096), z.number(), z.boolean()])),
});

export type VolumeSpec = z.output<typeof volumeSpecSchema>;

/** CHAP credentials: in memory, and in files for the daemon; never in a record. */
export type VolumeSecrets = {
  readonly chapUser?: string;
  readonly chapSecret?: string;
  readonly targetChapUser?: string;
  readonly targetChapSecret?: string;
};

/** Throws VolumeError `invalid` that names what is wrong. */
export function parseVolumeSpec(value: z.input<typeof volumeSpecSchema>): VolumeSpec {
  const parsed = volumeSpecSchema.safeParse(value);
  if (parsed.success) {
    const spec = parsed.data;
    // A disk that is not to be written is neither formatted nor repaired.
    return { ...spec, readOnly: spec.readOnly || spec.mountOptions.includes('ro') };
  }
  const issues = parsed.error.issues.slice(0, 3).map(({ path, message }) => {
    return `${path.map(String).join('.')}: ${message}`;
  });
  throw new VolumeError('invalid', `The volume is not described well: ${issues.join('; ')}.`);
}

/** Two descriptions of one place of a disk. */
export function isSameDisk(one: VolumeSpec, other: VolumeSpec): boolean {
  return iscsiNamesEqual(one.targetName, other.targetName) && one.lun === other.lun;
}

/** Two descriptions of one disk used in one way; secrets and portals may change. */
export function isSameVolume(one: VolumeSpec, other: VolumeSpec): boolean {
  return isSameDisk(one, other) && one.fsType === other.fsType;
}
