import type { ProductError } from '../../base/errors.js';
import { LoginMachine } from '../login/login.js';
import { formatPortal, type PortalAddress } from '../login/portal.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import type { QuirkLog } from '../quirks/quirks.js';
import { type AttemptVerdict, LoginFallbacks } from './login-fallbacks.js';
import type { SessionConfig, SessionIdentity } from './session-config.js';

/** CmdSN of every first login request; any value would do. */
export const FIRST_CMD_SN = 1;
/** Connection id of the leading connection. */
export const LEADING_CID = 0;

/** The session whose requests may be at work at the target. */
type Bound = {
  /** Its portal, null if a process before this one had it. */
  readonly place: string | null;
  /** Its portal group, null if the target does not tell. */
  readonly tag: number | null;
};

/**
 * What each login of a session is made of, and what earlier logins have taught: the portal group
 * whose session may still have requests, and what this target cannot do.
 */
export class LoginFactory {
  readonly #identity: SessionIdentity;
  readonly #config: SessionConfig;
  readonly #quirks: QuirkLog;
  readonly #fallbacks: LoginFallbacks;
  #lastGroup: number | null = null;
  /** Null: no request is to be feared. */
  #bound: Bound | null;
  #machine: LoginMachine | null = null;

  constructor(options: {
    readonly identity: SessionIdentity;
    readonly config: SessionConfig;
    readonly quirks: QuirkLog;
  }) {
    const { identity, config, quirks } = options;
    this.#identity = identity;
    this.#quirks = quirks;
    this.#bound = boundBefore(identity, config);
    this.#config = config;
    this.#fallbacks = new LoginFallbacks(config.login, quirks);
  }

  /**
   * A login at `portal`. TSIH 0 with the same ISID reinstates the session: its old tasks end at the
   * target first (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)). But a session is
   * one of a portal group (§4.4.1 (iSCSI Architecture Model)): a login to another group ends
   * nothing, and a write sent again there could be overtaken by the stale one. So while requests
   * wait only the group of the last login will do. The target's Time2Retain does not change that:
   * it counts from when the target notices the loss, which this side cannot see. With nothing
   * waiting any group will do: tags are given anew when a target is configured.
   */
  begin(portal: PortalAddress): LoginMachine {
    const bound = this.#bound;
    const isSameAddress = bound?.place === placeOf(portal);
    this.#machine = new LoginMachine({
      ...this.#fallbacks.login,
      ...(bound === null ? {} : { boundGroup: { tag: bound.tag, isSameAddress } }),
      quirks: this.#quirks,
      sessionType: this.#config.type === 'discovery' ? 'Discovery' : 'Normal',
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
    this.#bound = null;
  }

  /**
   * The target has answered every command: nothing of ours is left there, and a login to another
   * portal group, or to a portal that was given another one, overtakes nothing.
   */
  endedCleanly(): void {
    this.#bound = null;
    this.#lastGroup = null;
  }

  /** Notes the portal group. Returns warnings. */
  succeeded(portal: PortalAddress, parameters: SessionParameters): readonly string[] {
    const warnings = [this.#fallbacks.succeeded(), this.#groupChanged(portal, parameters)];
    return warnings.filter((warning) => warning !== null);
  }

  #groupChanged(portal: PortalAddress, parameters: SessionParameters): string | null {
    const group = parameters.targetPortalGroupTag;
    const place = placeOf(portal);
    this.#bound = { place, tag: group };
    if (group === null) return null;
    const before = this.#lastGroup;
    this.#lastGroup = group;
    if (before === null || before === group) return null;
    return (
      `${place} belongs to portal group ${group} and the portal before it to group ${before}: ` +
      'the target does not take this for the same session, and may still work on old requests'
    );
  }

  /** The attempt failed: is there another way to log in? */
  failed(error: ProductError): AttemptVerdict {
    return this.#fallbacks.failed(error, this.#machine);
  }
}

/**
 * What a process before this one has left. Where its target told no group, one portal stands for
 * one group; of several it is unknown which it was.
 */
function boundBefore(identity: SessionIdentity, config: SessionConfig): Bound | null {
  const { portalGroupTag } = identity;
  if (portalGroupTag !== undefined) return { place: null, tag: portalGroupTag };
  const isUnknown = config.firstLogin === 'resume' && config.portals.length > 1;
  return isUnknown ? { place: null, tag: null } : null;
}

function placeOf(portal: PortalAddress): string {
  return formatPortal({ host: portal.host, port: portal.port });
}
