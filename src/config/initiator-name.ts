import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';

/** The file open-iscsi and distributions keep this host's iSCSI name in. */
const SYSTEM_NAME_PATH = '/etc/iscsi/initiatorname.iscsi';

const FILE_NAME = 'initiatorname.iscsi';
/**
 * Names of hosts that were given none. `.local` has no owner (RFC 6762 §3), so the random
 * part alone keeps them apart: 12 hex digits.
 */
const GENERATED_PREFIX = 'iqn.2025-01.local.iscsi-nbd:';
const RANDOM_BYTES = 6;

type Environment = Readonly<Record<string, string | undefined>>;

/** Where state that outlives a process is kept: of the system for root, else of the user. */
export function stateDirectoryOf(environment: Environment, uid = process.getuid?.()): string {
  if (uid === 0) return '/var/lib/iscsi-nbd';
  const state = environment['XDG_STATE_HOME'];
  // The XDG base directory specification: a relative path is invalid and to be ignored.
  if (state?.startsWith('/')) return join(state, 'iscsi-nbd');
  return join(environment['HOME'] ?? homedir(), '.local', 'state', 'iscsi-nbd');
}

/**
 * The name this host logs in with: that of open-iscsi if it has one, else one that is generated
 * once and kept in the state directory. Throws UsageError when a file holds no valid name or none
 * can be kept.
 */
export function resolveInitiatorName(options: {
  readonly stateDirectory: string;
  readonly systemPath?: string;
}): string {
  const kept = join(options.stateDirectory, FILE_NAME);
  return (
    readName(options.systemPath ?? SYSTEM_NAME_PATH, 'skipUnreadable') ??
    readName(kept, 'mustBeReadable') ??
    keepNewName(options.stateDirectory, kept)
  );
}

/**
 * A host without a name yet: Debian's start scripts of open-iscsi replace this line by a name when
 * its daemon starts for the first time (startup-checks.sh).
 */
const IS_TO_BE_GENERATED = /^\s*GenerateName\s*=\s*yes\s*$/im;

/** The value of `InitiatorName=` in the text of such a file; `undefined` where it has none. */
function parseInitiatorNameFile(text: string): string | undefined {
  for (const line of text.split('\n')) {
    const found = /^\s*InitiatorName\s*=\s*(\S+)\s*$/.exec(line);
    if (found?.[1] !== undefined) return found[1];
  }
  return undefined;
}

/** The system's file is often for root alone: others then have a name of their own. */
function readName(path: string, access: 'skipUnreadable' | 'mustBeReadable'): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const errno = codeOf(cause);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    if (errno === 'EACCES' && access === 'skipUnreadable') return undefined;
    throw failed(`The initiator name cannot be read from ${path}`, cause);
  }
  const name = parseInitiatorNameFile(text);
  if (name === undefined && IS_TO_BE_GENERATED.test(text)) return undefined;
  if (name === undefined) {
    throw new UsageError(`${path} has no line InitiatorName=iqn.…; write one or remove the file.`);
  }
  const fault = iscsiNameFault(name);
  if (fault === null) return name;
  throw new UsageError(`The initiator name in ${path} is not valid: ${fault}.`);
}

/** Of two processes that come here at once, the first to link its file wins for both. */
function keepNewName(directory: string, path: string): string {
  const draft = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  const name = `${GENERATED_PREFIX}${randomBytes(RANDOM_BYTES).toString('hex')}`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(draft, `InitiatorName=${name}\n`, { mode: 0o600, flag: 'wx', flush: true });
    try {
      linkSync(draft, path);
    } finally {
      rmSync(draft);
    }
    return name;
  } catch (cause) {
    if (codeOf(cause) === 'EEXIST') {
      const other = readName(path, 'mustBeReadable');
      if (other !== undefined) return other;
    }
    throw failed(`A new initiator name cannot be kept in ${directory}`, cause);
  }
}

function failed(what: string, cause: unknown): UsageError {
  const errno = codeOf(cause) || 'unknown';
  const denied = errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS';
  return new UsageError(`${what} (${errno}). Give one with --initiator-name iqn.…`, {
    cause,
    exitCode: (denied ? EXIT_CODES.notPermitted : EXIT_CODES.error).code,
  });
}
