import { LoginRefusedError } from '../../base/errors.js';
import type { ChapAlgorithm } from '../login/chap.js';
import { LoginMachine } from '../login/login.js';
import { formatPortal, type PortalAddress } from '../login/portal.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import type { QuirkLog } from '../quirks/quirks.js';
import type { SessionConfig, SessionIdentity } from './session-config.js';

/** CmdSN of every first login request; any value would do. */
export const FIRST_CMD_SN = 1;
/** Connection id of the leading connection. */
export const LEADING_CID = 0;

/** Portals whose group is remembered; redirections must not fill memory. */
const GROUPS_MAX = 64;

/**
 * What each login of a session is made of, and what earlier logins have taught: the portal group
 * behind each portal, and CHAP algorithms that this target cannot do.
 */
export class LoginFactory {
  readonly #identity: SessionIdentity;
  readonly #config: SessionConfig;
  readonly #quirks: QuirkLog;
  readonly #groups = new Map<string, number>();
  #lastGroup: number | null = null;
  /** The group whose session may still have requests of ours; null: none is to be feared. */
  #boundGroup: number | null;
  #algorithms: readonly ChapAlgorithm[];
  #machine: LoginMachine | null = null;

  constructor(options: {
    readonly identity: SessionIdentity;
    readonly config: SessionConfig;
    readonly quirks: QuirkLog;
  }) {
    const { identity, config } = options;
    this.#identity = identity;
    this.#quirks = options.quirks;
    this.#boundGroup = identity.portalGroupTag ?? null;
    this.#config = config;
    this.#algorithms = config.login.chap?.algorithms ?? [];
  }

  /**
   * A login at `portal`. TSIH 0 with the same ISID reinstates the session: its old tasks end at the
   * target first (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)). But a session is
   * one of a portal group (§4.4.1 (iSCSI Architecture Model)): a login to another group ends
   * nothing, and a write sent again there could be overtaken by its ghost. So while requests wait
   * only the group of the last login will do.
   */
  begin(portal: PortalAddress): LoginMachine {
    const { type, login } = this.#config;
    const { chap } = login;
    const group = this.#boundGroup ?? this.#groups.get(placeOf(portal)) ?? portal.portalGroupTag;
    this.#machine = new LoginMachine({
      ...login,
      ...(chap === undefined ? {} : { chap: { ...chap, algorithms: this.#algorithms } }),
      ...(group === undefined ? {} : { expectedPortalGroupTag: group }),
      quirks: this.#quirks,
      sessionType: type === 'discovery' ? 'Discovery' : 'Normal',
      isid: this.#identity.isid,
      tsih: 0,
      cid: LEADING_CID,
      initiatorTaskTag: 0,
      cmdSN: FIRST_CMD_SN,
    });
    return this.#machine;
  }

  /** No request waits any more: any portal group will do. */
  requestsFailed(): void {
    this.#boundGroup = null;
  }

  /**
   * The target has answered every command, and the logout: nothing of ours is left there, and a
   * login to another portal group, or to a portal that was given another one, overtakes nothing.
   */
  endedCleanly(): void {
    this.#boundGroup = null;
    this.#lastGroup = null;
    this.#groups.clear();
  }

  /** Notes the portal group. Returns a warning, or null. */
  succeeded(portal: PortalAddress, parameters: SessionParameters): string | null {
    const group = parameters.targetPortalGroupTag;
    if (group === null) return null;
    const place = placeOf(portal);
    if (this.#groups.size < GROUPS_MAX) this.#groups.set(place, group);
    const before = this.#lastGroup;
    this.#lastGroup = group;
    this.#boundGroup = group;
    if (before === null || before === group) return null;
    return (
      `${place} belongs to portal group ${group} and the portal before it to group ${before}: ` +
      'the target does not take this for the same session, and may still work on old requests'
    );
  }

  /**
   * After a refusal that other CHAP algorithms of the operator may avoid: these are taken from now
   * on, and the returned warning says so. Null when there is nothing else to try.
   */
  fallBack(error: Error): string | null {
    if (!(error instanceof LoginRefusedError) || error.code !== 'ERR_CHAP_ALGORITHM') return null;
    const refused = this.#machine?.chapAlgorithm ?? null;
    const left =
      refused === null
        ? this.#algorithms.filter((name) => name === 'MD5')
        : this.#algorithms.filter((name) => name !== refused);
    if (left.length === 0 || left.length === this.#algorithms.length) return null;
    const what = refused === null ? this.#algorithms.join(', ') : refused;
    this.#algorithms = left;
    return `the target cannot do CHAP with ${what}; trying ${left.join(', ')}`;
  }
}

function placeOf(portal: PortalAddress): string {
  return formatPortal({ host: portal.host, port: portal.port });
}
