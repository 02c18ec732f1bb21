import { closestMatch } from '../base/closest-match.js';
import { isProcessOption, OPTION_NAMES } from '../config/config-options.js';
import { FILE_SYSTEM_TYPES, type FileSystemType, FSCK_POLICIES } from '../volume/file-system.js';
import type { VolumeError } from '../volume/volume-error.js';
import { VolumeInput } from '../volume/volume-input.js';
import { parseVolumeSpec, type VolumeSecrets, type VolumeSpec } from '../volume/volume-spec.js';

const INPUT = new VolumeInput('attributes');

type Texts = Readonly<Record<string, string>>;

/**
 * Attributes of a volume by each of their names: our own, those of csi-driver-iscsi, of Kubernetes'
 * own iscsi volumes, and of democratic-csi's node-manual.
 */
const ATTRIBUTE_NAMES = {
  portal: ['targetPortal', 'portal'],
  portals: ['portals'],
  target: ['iqn', 'target'],
  lun: ['lun'],
  fsType: ['fsType', 'fs_type'],
  readOnly: ['readOnly'],
  initiatorName: ['initiatorName'],
  needsChap: ['sessionCHAPAuth', 'chapAuthSession'],
  diskId: ['diskId'],
  fsck: ['fsck'],
  mountOptions: ['mountOptions'],
} as const;
type Attribute = keyof typeof ATTRIBUTE_NAMES;

/**
 * What is said to drivers that are made otherwise: no discovery is done, since the target is named,
 * and there is one kind of network interface.
 */
const PASSED_OVER: readonly string[] = [
  ...['discoveryCHAPAuth', 'chapAuthDiscovery', 'iscsiInterface', 'interface'],
  ...['node_attach_driver', 'provisioner_driver', 'provisioner_driver_instance_id'],
  ...['secret', 'secretRef'],
];
/** A note of the cluster, e.g. csi.storage.k8s.io/pod.name. */
const isNote = (key: string) => key.includes('/');
/** The session is for all LUNs of its target; secrets come as secrets. */
const NOT_TAKEN = ['luns', 'sessionType', 'portals', 'initiatorName', 'readOnly'];
const OPTIONS = OPTION_NAMES.filter(
  (name) => !isProcessOption(name) && !NOT_TAKEN.includes(name) && !/^(target)?chap.*/i.test(name),
);

export type Capability = {
  readonly isBlock: boolean;
  readonly fsType: string;
  readonly mountFlags: readonly string[];
  readonly isReadOnly: boolean;
};

/** The volume that its attributes describe. Throws VolumeError `invalid` that names one. */
export function readVolumeContext(context: Texts, capability: Capability): VolumeSpec {
  const found = new Map<Attribute, string>();
  const options: Record<string, string> = {};
  for (const [key, value] of Object.entries(context)) {
    const attribute = attributeOf(key);
    if (attribute !== null) found.set(attribute, value);
    else if (OPTIONS.some((name) => name === key)) options[key] = value;
    else if (!PASSED_OVER.includes(key) && !isNote(key)) throw unknown(key);
  }
  const initiatorName = found.get('initiatorName') ?? '';
  if (initiatorName !== '') options['initiatorName'] = initiatorName;
  const portal = found.get('portal') ?? '';
  const portals = [...new Set([...(portal === '' ? [] : [portal]), ...listOf(found, 'portals')])];
  if (portals.length === 0) throw INPUT.invalid('targetPortal is missing');
  if (!found.has('target')) throw INPUT.invalid('iqn is missing');
  const lun = INPUT.lun(found.get('lun') ?? '');
  const flags = [...capability.mountFlags, ...listOf(found, 'mountOptions')];
  const fsType = capability.fsType || found.get('fsType') || 'ext4';
  return parseVolumeSpec({
    targetName: found.get('target') ?? '',
    lun,
    portals,
    fsType: capability.isBlock ? null : fileSystemOf(fsType),
    fsck: INPUT.oneOf('fsck', found.get('fsck') ?? 'auto', FSCK_POLICIES),
    mountOptions: capability.isBlock ? [] : flags.flatMap((flag) => flag.split(',')),
    readOnly: capability.isReadOnly || isTrue(found.get('readOnly') || 'false'),
    diskId: found.get('diskId') || null,
    options,
  });
}

/** Kubernetes' own spellings of a truth value, of which YAML makes several. */
function isTrue(text: string): boolean {
  return INPUT.oneOf('readOnly', text.toLowerCase(), ['true', 'false'] as const) === 'true';
}

/**
 * CHAP credentials by the keys of Kubernetes' secret type `kubernetes.io/iscsi-chap`, or the same
 * with democratic-csi's `node-db.` before them. Throws VolumeError `invalid` if they are not whole.
 */
export function readSecrets(secrets: Texts, context: Texts): VolumeSecrets {
  const value = (key: string) => {
    return secrets[`node.session.auth.${key}`] ?? secrets[`node-db.node.session.auth.${key}`] ?? '';
  };
  const [user, password] = [value('username'), value('password')];
  const [userIn, passwordIn] = [value('username_in'), value('password_in')];
  const wanted = ATTRIBUTE_NAMES.needsChap.some((name) => context[name] === 'true');
  if ((user === '') !== (password === '') || (userIn === '') !== (passwordIn === '')) {
    throw INPUT.invalid('the secret has a user without a password, or a password without a user');
  }
  if (wanted && user === '') {
    throw INPUT.invalid(
      'sessionCHAPAuth is true, and the secret has no node.session.auth.username',
    );
  }
  if (user === '') return {};
  const target = userIn === '' ? {} : { targetChapUser: userIn, targetChapSecret: passwordIn };
  return { chapUser: user, chapSecret: password, ...target };
}

function attributeOf(key: string): Attribute | null {
  const names = Object.keys(ATTRIBUTE_NAMES) as Attribute[];
  return names.find((name) => ATTRIBUTE_NAMES[name].some((known) => known === key)) ?? null;
}

/** A list as JSON, as csi-driver-iscsi has it, or with commas. */
function listOf(found: ReadonlyMap<Attribute, string>, name: Attribute): string[] {
  const text = (found.get(name) ?? '').trim();
  if (text === '') return [];
  if (!text.startsWith('[')) return text.split(',').map((item) => item.trim());
  try {
    const value: unknown = JSON.parse(text);
    if (Array.isArray(value)) return value.map(String);
  } catch {
    // Said below.
  }
  throw INPUT.invalid(`${name} is not a list of texts in JSON`);
}

function fileSystemOf(text: string): FileSystemType {
  return INPUT.oneOf('fsType', text, FILE_SYSTEM_TYPES);
}

function unknown(key: string): VolumeError {
  const names = [...Object.values(ATTRIBUTE_NAMES).flat(), ...OPTIONS];
  const near = closestMatch(key, names);
  const hint = near === undefined ? '' : `; is it ${near}?`;
  return INPUT.invalid(`there is no attribute ${JSON.stringify(key.slice(0, 60))}${hint}`);
}
