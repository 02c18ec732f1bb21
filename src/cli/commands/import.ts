import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { configOf } from '../../config/config.js';
import { type NodeLogin, type NodeSecret, readNodes } from '../../config/open-iscsi.js';
import { formatHostPort } from '../../config/target-url.js';
import { DAEMON_GONE, DAEMON_UNREACHABLE } from '../../control/control-client.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { withControl, withDaemon } from '../control-session.js';
import { printJson, printLine, warn } from '../print.js';

const NODES = '/etc/iscsi/nodes';
const SECRETS = '/etc/iscsi-nbd/secrets';

export const IMPORT_OPEN_ISCSI: CommandBody = { build: withImport, run: runImport };

function withImport(parser: Argv): Argv {
  return withControl(parser)
    .positional('nodes', { type: 'string', describe: `directory of node records [${NODES}]` })
    .option('secrets-directory', {
      type: 'string',
      requiresArg: true,
      describe: `where CHAP secrets are put, a file each [${SECRETS}]`,
    })
    .option('all', { type: 'boolean', describe: 'also records that are not logged in at boot' })
    .option('dry-run', { type: 'boolean', describe: 'only show what would be kept' });
}

type Import = {
  readonly TargetName: string;
  readonly TargetPortal: string;
  readonly LoginOptions: Readonly<Record<string, unknown>>;
};

type Found = { readonly login: NodeLogin; readonly asked: Import };

/** `import-open-iscsi [nodes]`: node records become persistent logins. */
async function runImport(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const nodes = textArgument(args, 'nodes') ?? NODES;
  const secrets = textArgument(args, 'secrets-directory') ?? SECRETS;
  const { logins, skipped: unread } = readNodes(nodes);
  const wanted = logins.filter((login) => login.isAutomatic || isGiven(args, 'all'));
  const skipped: string[] = [...unread];
  const found = wanted.flatMap((login): readonly Found[] => {
    const asked = importOf(login, secrets);
    const fault = faultOf(() => configOf(asked.LoginOptions));
    if (fault !== null) skipped.push(`${login.targetName}: ${fault}`);
    return fault === null ? [{ login, asked }] : [];
  });
  for (const reason of skipped) warn(io, reason);
  if (wanted.length === 0) {
    throw new UsageError(`There is no node record for the boot in ${nodes}; see --all.`, {
      exitCode: EXIT_CODES.nothingFound.code,
      code: 'ERR_NOTHING_FOUND',
    });
  }
  const warnings = found.flatMap(({ login }) =>
    login.warnings.map((warning) => `${login.targetName}: ${warning}`),
  );
  for (const warning of warnings) warn(io, warning);
  const dryRun = isGiven(args, 'dry-run');
  if (!dryRun) for (const { login } of found) keepSecrets(login, secrets);
  const kept = await keepLogins(context, args, { found, skipped });
  const imported = kept.map(({ asked }) => asked);
  if (isGiven(args, 'json')) printJson(io, { imported, skipped, warnings, dryRun });
  else for (const login of imported) printLine(io, lineOf(login, dryRun));
  if (imported.length > 0) return EXIT_CODES.ok.code;
  throw new UsageError(
    `None of the ${wanted.length} targets in ${nodes} can be imported; the warnings say why.`,
  );
}

/**
 * Those that the daemon has taken, or would take (`--dry-run`); the reason of each other one goes
 * to `skipped`. Without a daemon a dry run believes its own judgement.
 */
async function keepLogins(
  context: CommandContext,
  args: Arguments,
  plan: { readonly found: readonly Found[]; readonly skipped: string[] },
): Promise<readonly Found[]> {
  const isDry = isGiven(args, 'dry-run');
  const asking = withDaemon(context, args, async (client) => {
    const kept: Found[] = [];
    for (const one of plan.found) {
      try {
        await client.call('AddPersistentLogin', { ...one.asked, ...(isDry && { DryRun: true }) });
        kept.push(one);
      } catch (error) {
        if (!(error instanceof UsageError) || error.code === DAEMON_GONE) throw error;
        const reason = `${one.login.targetName}: ${error.message}`;
        plan.skipped.push(reason);
        warn(context.io, reason);
      }
    }
    return kept;
  });
  return asking.catch((error: unknown) => {
    if (isDry && error instanceof UsageError && error.code === DAEMON_UNREACHABLE) {
      return plan.found;
    }
    throw error;
  });
}

function lineOf(login: Import, dryRun: boolean): string {
  const what = dryRun ? 'would be logged in to' : 'is logged in to';
  return `${login.TargetName} at ${login.TargetPortal} ${what} at the daemon's next start`;
}

/** What is wrong with it; null for nothing. */
function faultOf(judge: () => void): string | null {
  try {
    judge();
    return null;
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
}

function importOf(login: NodeLogin, secrets: string): Import {
  const [first, ...others] = login.portals;
  const { chap, targetChap } = login;
  return {
    TargetName: login.targetName,
    TargetPortal: first === undefined ? '' : formatHostPort(first),
    LoginOptions: {
      ...login.options,
      ...(others.length === 0 ? {} : { portals: others.map(formatHostPort) }),
      ...(chap === undefined
        ? {}
        : { chapUser: chap.user, chapSecretFile: secretPath(secrets, login, 'chap') }),
      ...(targetChap === undefined
        ? {}
        : {
            targetChapUser: targetChap.user,
            targetChapSecretFile: secretPath(secrets, login, 'target-chap'),
          }),
    },
  };
}

/** The records hold secrets; ours hold the names of files that do. */
function keepSecrets(login: NodeLogin, directory: string): void {
  const keep = (secret: NodeSecret | undefined, kind: 'chap' | 'target-chap') => {
    if (secret === undefined) return;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    requirePrivate(directory);
    // A new file replaces the old one, whose mode or link may be anyone's.
    const path = secretPath(directory, login, kind);
    rmSync(`${path}.new`, { force: true });
    writeFileSync(`${path}.new`, `${secret.secret}\n`, { mode: 0o600, flag: 'wx' });
    renameSync(`${path}.new`, path);
  };
  keep(login.chap, 'chap');
  keep(login.targetChap, 'target-chap');
}

/** Throws UsageError if others may put files of theirs in place of ours. */
function requirePrivate(directory: string): void {
  const { uid, mode } = lstatSync(directory);
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) return;
  throw new UsageError(
    `Secrets are not written to ${directory}, where other users may write: choose another ` +
      'directory, or remove that permission (chmod go-w).',
  );
}

function secretPath(directory: string, login: NodeLogin, kind: string): string {
  const digest = createHash('sha256').update(login.targetName).digest('hex').slice(0, 16);
  return join(directory, `${digest}.${kind}`);
}
