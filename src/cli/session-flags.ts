import type { Argv } from 'yargs';
import { UsageError } from '../base/errors.js';
import { type BootFrom, readBootSource } from '../boot/read-boot-source.js';
import { type Config, loadConfig } from '../config/config.js';
import { flagOf, OPTION_NAMES, OPTION_ROWS, type OptionName } from '../config/config-options.js';
import type { SessionOptions, SessionType, TargetUrl } from '../config/contract.js';
import { resolveInitiatorName, stateDirectoryOf } from '../config/initiator-name.js';
import { promptForSecret, resolveChap } from '../config/secrets.js';
import {
  type Authority,
  formatHostPort,
  parsePortalArgument,
  parseTargetUrl,
} from '../config/target-url.js';
import { withBootChap } from '../daemon/boot-login.js';
import { type Arguments, type CommandContext, requiredArgument, textArgument } from './context.js';
import { warn } from './print.js';

const GROUP = 'Session options (also ISCSI_NBD_… variables and /etc/iscsi-nbd/config.yaml):';

/** Adds `--config` and a flag for every option a session takes. */
export function withSessionFlags(parser: Argv): Argv {
  parser.option('config', {
    type: 'string',
    requiresArg: true,
    group: GROUP,
    describe: 'configuration file to read in place of /etc/iscsi-nbd/config.yaml',
  });
  for (const name of OPTION_NAMES) {
    // A process of one session has no use for them.
    if (name === 'workers') continue;
    const row = OPTION_ROWS[name];
    const isBoolean = 'isBoolean' in row;
    parser.option(flagOf(name), {
      type: isBoolean ? 'boolean' : 'string',
      ...(isBoolean ? {} : { requiresArg: true }),
      group: GROUP,
      // No default for yargs itself: a flag that is not given must not hide the other sources.
      describe: optionHelp(name),
    });
  }
  return parser;
}

/** The portal of `discover` with the options of its session. */
export async function preparePortal(
  context: CommandContext,
  args: Arguments,
): Promise<{ portal: Authority; options: SessionOptions }> {
  const portal = parsePortalArgument(requiredArgument(args, 'portal'));
  context.place = { portal: formatHostPort(portal) };
  const options = await prepareOptions(context, args, portal, 'informational');
  return { portal, options };
}

/** The target URL of a command with the options of its session. */
export async function prepareTarget(
  context: CommandContext,
  args: Arguments,
  sessionType: SessionType,
): Promise<{ url: TargetUrl; options: SessionOptions }> {
  const url = parseTargetUrl(requiredArgument(args, 'url'));
  context.place = {
    portal: formatHostPort(url),
    target: url.targetName,
    ...(url.lun === null ? {} : { lun: url.lun }),
  };
  const options = await prepareOptions(context, args, url, sessionType);
  if (url.lun !== null && options.luns !== undefined && !options.luns.includes(url.lun)) {
    throw new UsageError(`LUN ${url.lun} in the URL is not in --luns; drop one of them.`);
  }
  return { url, options };
}

/** The LUN the system is started from, with the options of its session; flags win. */
export async function prepareBootTarget(
  context: CommandContext,
  args: Arguments,
  from: BootFrom,
): Promise<{ url: TargetUrl; options: SessionOptions }> {
  const source = readBootSource(from);
  const { portal, targetName, lun } = source;
  context.place = { portal: formatHostPort(portal), target: targetName, lun };
  for (const warning of source.warnings) warn(context.io, warning);
  const given: Record<string, unknown> = {};
  for (const name of OPTION_NAMES) given[flagOf(name)] = args[flagOf(name)] ?? source.options[name];
  given['initiator-name'] ??= source.initiatorName;
  const environment = withBootChap(context.io.environment, source);
  const subject = { ...context, io: { ...context.io, environment } };
  const url: TargetUrl = { host: portal.host, port: portal.port, targetName, lun };
  return { url, options: await prepareOptions(subject, { ...args, ...given }, url, 'boot') };
}

async function prepareOptions(
  context: CommandContext,
  args: Arguments,
  url: { readonly user?: string; readonly password?: string },
  sessionType: SessionType,
): Promise<SessionOptions> {
  const { io } = context;
  const configPath = textArgument(args, 'config');
  const config = await loadConfig({
    flags: args,
    environment: io.environment,
    ...(configPath === undefined ? {} : { configPath }),
  });
  requireSessionType(config, sessionType);
  if (url.password !== undefined) {
    const why = 'other users of this machine can see it in the list of processes';
    warn(io, `the URL has a password: ${why}. Use --chap-secret-file PATH.`);
  }
  const hasTerminal = io.stdin.isTTY === true && io.stderr.isTTY === true;
  const prompt = (question: string) =>
    promptForSecret(question, { input: io.stdin, output: io.stderr });
  const chap = await resolveChap({
    config,
    environment: io.environment,
    url,
    ...(hasTerminal ? { prompt } : {}),
  });
  const stateDirectory = stateDirectoryOf(io.environment);
  return {
    ...withoutSecretFiles(config),
    sessionType,
    initiatorName: config.values.initiatorName ?? resolveInitiatorName({ stateDirectory }),
    ...(chap === undefined ? {} : { chap }),
  };
}

/** The command decides the type; a flag that says otherwise must not be passed over. */
function requireSessionType(config: Config, sessionType: SessionType): void {
  if (config.sources.sessionType !== 'flag' || config.values.sessionType === sessionType) return;
  throw new UsageError(
    `--session-type ${config.values.sessionType}: this command makes a session of type ` +
      `${sessionType}. Omit the flag.`,
  );
}

function withoutSecretFiles(config: Config): Omit<SessionOptions, 'initiatorName' | 'chap'> {
  const { chapUser, chapSecretFile, targetChapUser, targetChapSecretFile, ...rest } = config.values;
  return rest;
}

/** An option's line in a help text, with its default. */
export function optionHelp(name: OptionName): string {
  return `${OPTION_ROWS[name].help}${defaultText(name)}`;
}

function defaultText(name: OptionName): string {
  const row = OPTION_ROWS[name];
  if (!('defaultValue' in row)) return '';
  const value = row.defaultValue;
  if (typeof value === 'boolean') return ` [${value ? 'yes' : 'no'}]`;
  const text = String(value);
  return text === '' ? '' : ` [${text}]`;
}
