import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { type NodeLogin, type NodeSecret, readNodes } from '../../config/open-iscsi.js';
import { formatHostPort } from '../../config/target-url.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { type Arguments, type CommandContext, isGiven, textArgument } from '../context.js';
import { withControl, withDaemon } from '../control-session.js';
import { printJson, printLine, warn } from '../print.js';

const NODES = '/etc/iscsi/nodes';
const SECRETS = '/etc/iscsi-nbd/secrets';

export function withImport(parser: Argv): Argv {
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

/** `import-open-iscsi [nodes]`: node records become persistent logins. */
export async function runImport(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const nodes = textArgument(args, 'nodes') ?? NODES;
  const secrets = textArgument(args, 'secrets-directory') ?? SECRETS;
  const { logins, skipped } = readNodes(nodes);
  for (const reason of skipped) warn(io, reason);
  const wanted = logins.filter((login) => login.isAutomatic || isGiven(args, 'all'));
  if (wanted.length === 0) {
    throw new UsageError(`There is no node record for the boot in ${nodes}; see --all.`, {
      exitCode: EXIT_CODES.nothingFound.code,
      code: 'ERR_NOTHING_FOUND',
    });
  }
  const isDry = isGiven(args, 'dry-run');
  const imports = wanted.map((login) => importOf(login, secrets));
  if (!isDry) {
    for (const login of wanted) keepSecrets(login, secrets);
    await withDaemon(context, args, async (client) => {
      for (const login of imports) await client.call('AddPersistentLogin', login);
    });
  }
  if (isGiven(args, 'json')) printJson(io, { imported: imports, skipped, dryRun: isDry });
  for (const login of isGiven(args, 'json') ? [] : imports) {
    const what = isDry ? 'would be logged in to' : 'is logged in to';
    printLine(
      io,
      `${login.TargetName} at ${login.TargetPortal} ${what} at the daemon's next start`,
    );
  }
  return EXIT_CODES.ok.code;
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
    writeFileSync(secretPath(directory, login, kind), `${secret.secret}\n`, { mode: 0o600 });
  };
  keep(login.chap, 'chap');
  keep(login.targetChap, 'target-chap');
}

function secretPath(directory: string, login: NodeLogin, kind: string): string {
  const digest = createHash('sha256').update(login.targetName).digest('hex').slice(0, 16);
  return join(directory, `${digest}.${kind}`);
}
