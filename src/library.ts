/**
 * iSCSI targets from a program: discovery, sessions, SCSI commands, and block reads and writes,
 * with no NBD, no root and no kernel driver.
 *
 * ```ts
 * import { discover, openSession } from 'iscsi-nbd';
 *
 * for (const target of await discover('192.0.2.1')) console.log(target.name);
 *
 * await using session = await openSession('iscsi://192.0.2.1/iqn.2001-04.com.example:disk1');
 * const { sizeBytes, blockSizeBytes } = await session.capacity(0);
 * const first = await session.read(0, 0, blockSizeBytes);
 * await session.write(0, 0, first);
 * await session.flush(0);
 * ```
 *
 * Errors are the classes below, told apart by class or `code`: UsageError (a wrong argument, or no
 * such LUN), LinkError (the network), LoginRefusedError (the target refuses), ProtocolError (the
 * target broke RFC 7143), ScsiError, and BlockError (a read, write or flush failed; `errno` says
 * how).
 *
 * @module iscsi-nbd
 */
import { LinkError, UsageError } from './base/errors.js';
import { configOf } from './config/config.js';
import { isProcessOption, OPTION_NAMES, type OptionName } from './config/config-options.js';
import type {
  ChapCredentials,
  DiscoveredTarget,
  ProductEvent,
  SessionOptions,
} from './config/contract.js';
import { resolveInitiatorName, stateDirectoryOf } from './config/initiator-name.js';
import { type Authority, parsePortalArgument, parseTargetUrl } from './config/target-url.js';
import { ClientSession } from './session/client-session.js';
import { discover as discoverTargets } from './session/discovery-session.js';

export {
  type BlockErrno,
  BlockError,
  LinkError,
  LoginRefusedError,
  ProductError,
  ProtocolError,
  ScsiError,
  UsageError,
} from './base/errors.js';
export type { BlockOptions, WriteOptions } from './bridge/block-client.js';
export type { ReplayReason } from './bridge/retained/retained-writes.js';
export type {
  Alua,
  ChapAlgorithmName,
  ChapCredentials,
  DigestName,
  DiscoveredTarget,
  EventBody,
  LunExport,
  Multipath,
  PathPolicy,
  ProductEvent,
  RetainWrites,
  ScsiAnswer,
  ScsiRequest,
  SessionState,
  SessionType,
} from './config/contract.js';
export type { PortalAddress } from './iscsi/login/portal.js';
export type { LunField } from './scsi/command.js';
export type { ClientSession, DiskCapacity } from './session/client-session.js';

type Settings = Omit<SessionOptions, 'initiatorName' | 'chap' | 'portals' | 'luns'>;

/**
 * The options of docs and configuration file, by the same names; defaults apply where one is left
 * out. No configuration file and no environment variable is read.
 */
export type Options = { readonly [Name in keyof Settings]?: Settings[Name] | undefined } & {
  /** Default: the name of this host, as the commands use it. */
  readonly initiatorName?: string | undefined;
  readonly chap?: ChapCredentials | undefined;
  /** Other portals of the same target, each `host[:port]`. */
  readonly portals?: readonly string[] | undefined;
  /** Ends the login. */
  readonly signal?: AbortSignal | undefined;
};

export type SessionHooks = {
  /** Told of the session's states, held requests and so on; it must not throw. */
  readonly onEvent?: ((event: ProductEvent) => void) | undefined;
};

/**
 * Asks a portal, `host[:port]`, for its targets in a Discovery session (RFC 7143 Appendix C).
 * Rejects with UsageError, LinkError, LoginRefusedError, ProtocolError or the signal's reason.
 */
export async function discover(
  portal: string,
  options: Options = {},
): Promise<readonly DiscoveredTarget[]> {
  const authority = parsePortalArgument(portal);
  const { signal, settings } = settle(options, authority);
  signal.throwIfAborted();
  return discoverTargets({ host: authority.host, port: authority.port }, settings, signal);
}

/**
 * Logs in to the target of `iscsi://[user@]host[:port]/<target-name>`. A LUN in the URL is checked
 * to be there. The session continues over outages until `close`; dispose of it in any case, or the
 * process stays alive. Rejects as `discover` does; UsageError 21 without the LUN.
 */
export async function openSession(
  url: string,
  options: Options & SessionHooks = {},
): Promise<ClientSession> {
  const target = parseTargetUrl(url);
  const { onEvent, ...others } = options;
  const { signal, settings } = settle(others, target);
  signal.throwIfAborted();
  const hooks = { signal, onEvent: onEvent ?? (() => undefined) };
  const session = await ClientSession.open(target, settings, hooks);
  try {
    if (target.lun !== null) await session.capacity(target.lun);
    signal.throwIfAborted();
    return session;
  } catch (error) {
    await session.close().catch((cause: unknown) => {
      if (!(cause instanceof LinkError)) throw cause;
    });
    throw error;
  }
}

/** Options checked, with the defaults of the rest and the credentials of the URL. */
function settle(
  options: Options,
  place: Pick<Authority, 'user' | 'password'>,
): { signal: AbortSignal; settings: SessionOptions } {
  const { signal = new AbortController().signal, chap = chapOf(place), ...named } = options;
  const { values } = configOf(named);
  const initiatorName =
    values.initiatorName ?? resolveInitiatorName({ stateDirectory: stateDirectoryOf(process.env) });
  const { chapUser, chapSecretFile, targetChapUser, targetChapSecretFile, ...rest } = values;
  const given: Partial<Record<OptionName, unknown>> = named;
  const ofProcess = OPTION_NAMES.find((name) => isProcessOption(name) && given[name] !== undefined);
  if (ofProcess !== undefined) {
    throw new UsageError(`The option ${ofProcess} is for commands: the process has it.`);
  }
  const files = { chapUser, chapSecretFile, targetChapUser, targetChapSecretFile };
  for (const [name, value] of Object.entries(files)) {
    if (value === undefined) continue;
    throw new UsageError(`The option ${name} is for commands: give \`chap\` with the secret.`);
  }
  return {
    signal,
    settings: { ...rest, initiatorName, ...(chap === undefined ? {} : { chap }) },
  };
}

function chapOf(place: Pick<Authority, 'user' | 'password'>): ChapCredentials | undefined {
  const { user, password } = place;
  if (user === undefined) return undefined;
  if (password !== undefined) return { user, secret: password };
  throw new UsageError(`The URL names the user ${user} and no secret: give \`chap\` with it.`);
}
