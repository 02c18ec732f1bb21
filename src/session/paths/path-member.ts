import { productError } from '../../base/errors.js';
import type { ScsiAnswer, ScsiRequest } from '../../config/contract.js';
import { formatPortal, type PortalAddress } from '../../iscsi/login/portal.js';
import type { Attention, VerdictAction } from '../../scsi/sense-table.js';
import type { SessionClient } from '../session-client.js';
import type { SessionEvent } from '../session-event.js';
import type { OtherTarget } from './path-places.js';

export type PathMemberHooks = {
  /** The session is logged in again. */
  readonly back: (member: PathMember) => void;
  /** The session is gone; called before its commands come back as lost. */
  readonly lost: (member: PathMember, reason: string) => void;
  /** A command that was sent for us met it. */
  readonly attention: (
    member: PathMember,
    lun: number,
    attention: Attention,
    action: VerdictAction,
  ) => void;
  /** All that the session tells, for the publisher. */
  readonly heard: (member: PathMember, event: SessionEvent) => void;
};

/**
 * One of the sessions over which the disks of a target are reached: an I_T nexus with an identity,
 * a portal and reconnects of its own.
 */
export class PathMember {
  readonly client: SessionClient;
  /** It was not requested by name: see `Path.isSpare`. */
  isSpare: boolean;
  /** It goes to a target of another name; null: to that of the first session. */
  readonly other: OtherTarget | null;
  /**
   * The target's side of the nexus of the last login: the portal group, or the portal where the
   * target names no group. A login with the same ISID ends the tasks of the session before only if
   * this is the same (RFC 7143 §4.4.1 (iSCSI Architecture Model)). Null: no login is known.
   */
  nexus: string | null;
  /** No session of this member is left at the target, as far as the target has said. */
  isLoggedOut: boolean;
  readonly #hooks: PathMemberHooks;
  #resets = 0;

  constructor(
    client: SessionClient,
    {
      mayHaveGhosts,
      isSpare = false,
      other,
    }: {
      readonly mayHaveGhosts: boolean;
      readonly isSpare?: boolean;
      readonly other?: OtherTarget | undefined;
    },
    hooks: PathMemberHooks,
  ) {
    this.client = client;
    this.isSpare = isSpare;
    this.other = other ?? null;
    this.#hooks = hooks;
    this.nexus = this.#nexusNow();
    this.isLoggedOut = !mayHaveGhosts && this.nexus === null;
    client.listen((event) => this.#heard(event));
    client.onAttention = (lun, attention, action) => hooks.attention(this, lun, attention, action);
  }

  /** The portal that it keeps to. */
  get portal(): PortalAddress {
    return this.client.session.portals.current;
  }

  /** The portal as people know it, with the target if it is another one. */
  get name(): string {
    const portal = formatPortal(this.portal);
    return this.other === null ? portal : `${portal} of ${this.other.targetName}`;
  }

  /** The LUN of the first session is a unit that this session has, too. */
  reaches(lun: number): boolean {
    return this.other === null || this.other.units.some((unit) => unit.lun === lun);
  }

  get isLoggedIn(): boolean {
    return this.client.session.state === 'loggedIn';
  }

  /** Logs in, and again after each loss, until `close`. */
  start(): void {
    this.client.initiator.start();
  }

  execute(request: ScsiRequest, onSent?: () => void): Promise<ScsiAnswer> {
    return this.client.send(request, onSent);
  }

  /** LOGICAL UNIT RESET over this session; resolves to whether the target has done this one. */
  resetUnit(lun: number): Promise<boolean> {
    const field = this.client.lunFields.fieldOf(lun);
    this.#resets += 1;
    const request = this.#resets;
    return new Promise((resolve) => {
      const unlisten = this.client.listen((event) => {
        if (event.type !== 'unitReset' || event.request !== request) return;
        unlisten();
        resolve(event.isDone);
      });
      this.client.initiator.dispatch((session, nowMs) =>
        session.flow.resetUnit({ lun: field, request }, nowMs),
      );
    });
  }

  async close(): Promise<void> {
    await this.client.logout().catch(productError);
  }

  #heard(event: SessionEvent): void {
    this.#hooks.heard(this, event);
    if (event.type === 'closeLink' && event.end === 'orderly') this.isLoggedOut = true;
    if (event.type !== 'stateChanged') return;
    if (event.to === 'loggedIn') {
      this.isLoggedOut = false;
      this.nexus = this.#nexusNow();
      this.#hooks.back(this);
    } else if (event.from === 'loggedIn') {
      this.#hooks.lost(this, event.reason);
    }
  }

  #nexusNow(): string | null {
    const { connection, portal } = this.client.session;
    const group = connection?.parameters?.targetPortalGroupTag ?? null;
    if (group !== null) return `group ${group}`;
    return connection?.parameters == null || portal === null ? null : formatPortal(portal);
  }
}
