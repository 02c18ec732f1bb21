import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { DEFAULT_PORT, type PortalAddress, readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { OptionName } from './config-options.js';
import { openIscsiOptions } from './open-iscsi-options.js';
import { formatHostPort } from './target-url.js';

/** Node records of one host, at most; each is a small file. */
const RECORDS_MAX = 4096;
const RECORD_BYTES_MAX = 64 << 10;
/** target / portal / interface: the deepest place of a record. */
const DEPTH_MAX = 3;
const PORT_MAX = 65_535;

export type NodeSecret = { readonly user: string; readonly secret: string };

/** One target of open-iscsi as we would log in to it. */
export type NodeLogin = {
  readonly targetName: string;
  /** The first is the one to log in to, the others are tried in turn. */
  readonly portals: readonly PortalAddress[];
  /** Logged in at the start: `node.startup` is `automatic` or `onboot`. */
  readonly isAutomatic: boolean;
  readonly options: Readonly<Partial<Record<OptionName, string>>>;
  /** Values that were replaced by ones that are possible here, in words. */
  readonly warnings: readonly string[];
  readonly chap?: NodeSecret;
  /** What the target proves itself with. */
  readonly targetChap?: NodeSecret;
};

/**
 * What a node record says: lines `name = value`, as `iscsiadm --mode node` shows them. Throws
 * UsageError for one without a target name or address, or with a value that is none.
 */
export function parseNodeRecord(text: string): NodeLogin {
  const settings = new Map<string, string>();
  for (const line of text.split('\n')) {
    const found = /^\s*([a-zA-Z][\w.[\]]*)\s*=\s*(.*?)\s*$/.exec(line);
    if (found?.[1] === undefined || found[2] === undefined) continue;
    if (found[2] !== '' && found[2] !== '<empty>') settings.set(found[1], found[2]);
  }
  const targetName = settings.get('node.name') ?? '';
  const fault = iscsiNameFault(targetName);
  if (fault !== null) throw new UsageError(`its node.name is not valid: ${fault}`);
  const { options, warnings } = openIscsiOptions(settings);
  const startup = settings.get('node.startup') ?? settings.get('node.conn[0].startup');
  const usesChap = settings.get('node.session.auth.authmethod') === 'CHAP';
  const auth = 'node.session.auth';
  const chap = usesChap ? secretOf(settings, `${auth}.username`, `${auth}.password`) : null;
  const back = usesChap ? secretOf(settings, `${auth}.username_in`, `${auth}.password_in`) : null;
  return {
    targetName,
    portals: [portalOf(settings)],
    isAutomatic: startup === 'automatic' || startup === 'onboot',
    options,
    warnings,
    ...(chap === null ? {} : { chap }),
    ...(back === null ? {} : { targetChap: back }),
  };
}

type NodesFound = {
  /** One a target: its portals are joined. */
  readonly logins: readonly NodeLogin[];
  /** Files that were not understood, each with the reason. */
  readonly skipped: readonly string[];
};

/** All records under a `nodes` directory. Throws UsageError when it cannot be read. */
export function readNodes(directory: string): NodesFound {
  const byTarget = new Map<string, NodeLogin>();
  const skipped: string[] = [];
  for (const path of recordsUnder(directory, DEPTH_MAX)) {
    try {
      if (statSync(path).size > RECORD_BYTES_MAX) throw new UsageError('it is too large');
      const login = parseNodeRecord(readFileSync(path, 'utf8'));
      const known = byTarget.get(login.targetName);
      byTarget.set(login.targetName, known === undefined ? login : joined(known, login));
    } catch (error) {
      skipped.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { logins: [...byTarget.values()], skipped };
}

function recordsUnder(directory: string, depth: number): string[] {
  let entries: import('node:fs').Dirent[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch (cause) {
    const errno = codeOf(cause) || 'unknown';
    const isDenied = errno === 'EACCES';
    throw new UsageError(`The node records in ${directory} cannot be read (${errno}).`, {
      cause,
      exitCode: (isDenied ? EXIT_CODES.notPermitted : EXIT_CODES.nothingFound).code,
    });
  }
  const paths = entries.flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isFile()) return [path];
    return entry.isDirectory() && depth > 1 ? recordsUnder(path, depth - 1) : [];
  });
  return paths.slice(0, RECORDS_MAX);
}

/** Two records of a target differ in portal, and in interface, which we have none of. */
function joined(one: NodeLogin, other: NodeLogin): NodeLogin {
  const isKnown = (portal: PortalAddress) =>
    one.portals.some((known) => known.host === portal.host && known.port === portal.port);
  const more = other.portals.filter((portal) => !isKnown(portal));
  return {
    ...one,
    portals: [...one.portals, ...more],
    isAutomatic: one.isAutomatic || other.isAutomatic,
  };
}

function portalOf(settings: ReadonlyMap<string, string>): PortalAddress {
  const address = settings.get('node.conn[0].address');
  const port = Number(settings.get('node.conn[0].port') ?? DEFAULT_PORT);
  if (address === undefined) throw new UsageError('it has no address of a portal');
  if (!Number.isInteger(port) || port < 1 || port > PORT_MAX) {
    throw new UsageError(`its node.conn[0].port is not a number from 1 to ${PORT_MAX}`);
  }
  const host = address.replace(/^\[(.*)\]$/, '$1');
  const place = readPortal(formatHostPort({ host, port }));
  if ('fault' in place)
    throw new UsageError(`its node.conn[0].address is not valid: ${place.fault}`);
  return { host: place.host, port };
}

function secretOf(
  settings: ReadonlyMap<string, string>,
  userName: string,
  secretName: string,
): NodeSecret | null {
  const user = settings.get(userName);
  const secret = settings.get(secretName);
  return user === undefined || secret === undefined ? null : { user, secret };
}
