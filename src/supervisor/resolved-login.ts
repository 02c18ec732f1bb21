import { isDeepStrictEqual } from 'node:util';
import { closestMatch } from '../base/closest-match.js';
import { UsageError } from '../base/errors.js';
import { type Config, loadConfigWith } from '../config/config.js';
import {
  flagOf,
  isProcessOption,
  OPTION_NAMES,
  type OptionName,
} from '../config/config-options.js';
import type { SessionOptions, SessionType } from '../config/contract.js';
import { resolveInitiatorName } from '../config/initiator-name.js';
import { parseConfigText } from '../config/parse-config.js';
import { resolveChap } from '../config/secrets.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { formatPortal, type PortalAddress } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import { samePortal } from '../iscsi/session/portal-list.js';

/** A login as a client requests it. */
export type LoginParams = {
  readonly targetName: string;
  readonly portal: PortalAddress;
  readonly sessionType: SessionType;
  readonly persistent: boolean;
  /** By option name, as the configuration file writes them. */
  readonly options: Readonly<Record<string, unknown>>;
};

type Environment = Readonly<Record<string, string | undefined>>;

/** Where the daemon's own settings come from. */
export type DaemonEnvironment = {
  readonly environment: Environment;
  /** With the credentials of the boot target, which are for no other one. */
  readonly boot?: { readonly targetName: string; readonly environment: Environment };
  readonly configPath?: string;
  readonly stateDirectory: string;
};

/** A login with every default filled in. */
export type ResolvedLogin = {
  readonly request: LoginParams;
  readonly initiatorName: string;
  readonly config: Config;
};

/** Throws UsageError that names what is wrong. Reads the configuration anew each time. */
export function resolveLogin(request: LoginParams, surroundings: DaemonEnvironment): ResolvedLogin {
  const fault = iscsiNameFault(request.targetName);
  if (fault !== null) throw new UsageError(`The target name is not valid: ${fault}.`);
  const flags: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(request.options)) flags[flagOf(named(name))] = value;
  const { configPath, stateDirectory } = surroundings;
  const environment = environmentFor(request, surroundings);
  const file = configPath === undefined ? {} : { configPath };
  const config = loadConfigWith({ flags, environment, ...file }, parseConfigText);
  const initiatorName = config.values.initiatorName ?? resolveInitiatorName({ stateDirectory });
  return { request, initiatorName, config };
}

function environmentFor(
  { targetName }: Pick<LoginParams, 'targetName'>,
  { environment, boot }: DaemonEnvironment,
): Environment {
  return boot?.targetName === targetName ? boot.environment : environment;
}

/** The session's options with its secrets, which are read now. Throws UsageError. */
export async function sessionOptionsOf(
  plan: ResolvedLogin,
  surroundings: DaemonEnvironment,
): Promise<SessionOptions> {
  const { config, initiatorName, request } = plan;
  const environment = environmentFor(request, surroundings);
  const chap = await resolveChap({ config, environment, url: {} });
  const { chapUser, chapSecretFile, targetChapUser, targetChapSecretFile, ...rest } = config.values;
  return {
    ...rest,
    sessionType: request.sessionType,
    initiatorName,
    ...(chap === undefined ? {} : { chap }),
  };
}

/**
 * A login to a target that has a session succeeds if the session has the requested options, or if
 * the portal can be one more path; else UsageError 15 names the first difference.
 */
export function requireSameOptions(
  existing: ResolvedLogin,
  wished: ResolvedLogin,
  sessionId: string,
): void {
  if (isOtherPortal(existing, wished) && !mayHavePaths(existing)) {
    const portals = portalsOf(existing).map(formatPortal).join(', ');
    throw exists(existing, sessionId, `over portal ${portals}`);
  }
  for (const key of Object.keys(wished.request.options)) {
    const name = named(key);
    const before = existing.config.values[name];
    if (isDeepStrictEqual(before, wished.config.values[name])) continue;
    throw exists(existing, sessionId, `with ${name} ${JSON.stringify(before)}`);
  }
}

/** The portal is none of those that the session was asked for with. */
export function isOtherPortal(existing: ResolvedLogin, wished: ResolvedLogin): boolean {
  return !portalsOf(existing).some((portal) => samePortal(portal, wished.request.portal));
}

function portalsOf({ request, config }: ResolvedLogin): readonly PortalAddress[] {
  return [request.portal, ...config.values.portals];
}

/** Another portal becomes a path of the same disks. */
function mayHavePaths({ request, config }: ResolvedLogin): boolean {
  return request.sessionType !== 'informational' && config.values.multipath === 'auto';
}

function exists(existing: ResolvedLogin, sessionId: string, how: string): UsageError {
  const { targetName, sessionType } = existing.request;
  return new UsageError(
    `There is a ${sessionType} session ${sessionId} to ${targetName} already, ${how}. ` +
      'Log it out first to change that.',
    { exitCode: EXIT_CODES.sessionExists.code, code: 'ERR_SESSION_EXISTS' },
  );
}

function named(key: string): OptionName {
  const name = OPTION_NAMES.find((candidate) => candidate === key);
  if (name !== undefined && name !== 'sessionType' && !isProcessOption(name)) return name;
  const near = closestMatch(key, OPTION_NAMES);
  const hint = near === undefined || near === key ? '' : ` Did you mean ${near}?`;
  throw new UsageError(`A login has no option ${JSON.stringify(key.slice(0, 60))}.${hint}`);
}
