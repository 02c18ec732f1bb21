import { closestMatch } from '../base/closest-match.js';
import { flagOf, isProcessOption, OPTION_NAMES } from '../config/config-options.js';
import { parseTargetUrl } from '../config/target-url.js';
import { formatPortal } from '../iscsi/login/portal.js';
import { FILE_SYSTEM_TYPES, FSCK_POLICIES } from '../volume/file-system.js';
import { VolumeInput } from '../volume/volume-input.js';
import { parseVolumeSpec, type VolumeSpec } from '../volume/volume-spec.js';

const INPUT = new VolumeInput('options');
/** Options of `docker volume create -o` that say which disk and how; the rest are the login's. */
const OWN_OPTIONS = [
  ...['url', 'portal', 'portals', 'target', 'lun'],
  ...['fstype', 'fsck', 'mount-options', 'read-only', 'disk-id'],
] as const;
/** The session is for all LUNs of its target, and is what its type says. */
const NOT_TAKEN = ['luns', 'sessionType'];
const OPTIONS_MAX = 64;

/** The volume that the options describe. Throws VolumeError `invalid` that names the option. */
export function readDockerOptions(given: Readonly<Record<string, string>>): VolumeSpec {
  const entries = Object.entries(given);
  if (entries.length > OPTIONS_MAX)
    throw INPUT.invalid(`there are more than ${OPTIONS_MAX} options`);
  const own = new Map<string, string>();
  const login: Record<string, string> = {};
  for (const [key, value] of entries) {
    if (OWN_OPTIONS.some((name) => name === key)) own.set(key, value);
    else login[loginOption(key)] = value;
  }
  const disk = diskOf(own);
  return parseVolumeSpec({
    ...disk,
    fsType: INPUT.oneOf('fstype', own.get('fstype') ?? 'ext4', FILE_SYSTEM_TYPES),
    fsck: INPUT.oneOf('fsck', own.get('fsck') ?? 'auto', FSCK_POLICIES),
    mountOptions: words(own.get('mount-options')),
    readOnly:
      INPUT.oneOf('read-only', own.get('read-only') ?? 'false', ['true', 'false']) === 'true',
    diskId: own.get('disk-id') ?? null,
    options: login,
  });
}

function diskOf(own: ReadonlyMap<string, string>) {
  const more = words(own.get('portals'));
  const url = own.get('url');
  if (url !== undefined) {
    const twice = ['portal', 'target', 'lun'].find((name) => own.has(name));
    if (twice !== undefined)
      throw INPUT.invalid(`${twice} and url specify the same; omit one of them`);
    const { targetName, lun, password, host, port } = parseTargetUrl(url);
    if (password !== undefined) {
      throw INPUT.invalid(
        'a password in url is seen by everybody; name its file by chap-secret-file',
      );
    }
    if (lun === null) throw INPUT.invalid('url names no LUN; add /<lun> to it');
    return { targetName, lun, portals: [formatPortal({ host, port }), ...more] };
  }
  const portal = own.get('portal');
  const portals = portal === undefined ? more : [portal, ...more];
  const targetName = own.get('target');
  if (portals.length === 0 || targetName === undefined) {
    throw INPUT.invalid(
      'it names no disk: give -o url=iscsi://host/<target>/<lun>, or portal and target',
    );
  }
  const lun = own.get('lun') ?? '0';
  return { targetName, lun: INPUT.lun(lun), portals };
}

/** `removal-latency` is `removalLatencySeconds`; the daemon judges the value. */
function loginOption(key: string): string {
  const names = OPTION_NAMES.filter((name) => !isProcessOption(name) && !NOT_TAKEN.includes(name));
  const found = names.find((name) => name === key || flagOf(name) === key);
  if (found !== undefined) return found;
  const near = closestMatch(key, [...OWN_OPTIONS, ...names.map(flagOf)]);
  const hint = near === undefined ? '' : `; did you mean ${near}?`;
  throw INPUT.invalid(`there is no option ${JSON.stringify(key.slice(0, 60))}${hint}`);
}

function words(text: string | undefined): string[] {
  return (text ?? '').split(',').filter((word) => word !== '');
}
