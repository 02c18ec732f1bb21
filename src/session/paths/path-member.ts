import { productError } from '../../base/errors.js';
import type { ScsiAnswer, ScsiRequest } from '../../config/contract.js';
import type { Attention, VerdictAction } from '../../scsi/sense-table.js';
import type { SessionClient } from '../session-client.js';
import type { SessionEvent } from '../session-event.js';

export type PathMemberHooks = {
  /** A login has ended the tasks of the login before, and the session can be used. */
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
  /** All that the session tells, for whoever publishes it. */
  readonly heard: (member: PathMember, event: SessionEvent) => void;
};

/**
 * One of the sessions over which the disks of a target are reached: an I_T nexus with an identity,
 * a portal and reconnects of its own.
 */
export class PathMember {
  readonly client: SessionClient;
  /** Portal as people know it. */
  readonly name: string;
  readonly #hooks: PathMemberHooks;

  constructor(client: SessionClient, name: string, hooks: PathMemberHooks) {
    this.client = client;
    this.name = name;
    this.#hooks = hooks;
    client.listen((event) => this.#heard(event));
    client.onAttention = (lun, attention, action) => hooks.attention(this, lun, attention, action);
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

  /** LOGICAL UNIT RESET over this session; resolves to whether the target has done it. */
  resetUnit(lun: number): Promise<boolean> {
    const field = this.client.lunFields.fieldOf(lun);
    return new Promise((resolve) => {
      const unlisten = this.client.listen((event) => {
        if (event.type !== 'unitReset' || event.lun !== field) return;
        unlisten();
        resolve(event.isDone);
      });
      this.client.initiator.dispatch((session, nowMs) => session.flow.resetUnit(field, nowMs));
    });
  }

  async close(): Promise<void> {
    await this.client.logout().catch(productError);
  }

  #heard(event: SessionEvent): void {
    this.#hooks.heard(this, event);
    if (event.type !== 'stateChanged') return;
    if (event.to === 'loggedIn') this.#hooks.back(this);
    else if (event.from === 'loggedIn') this.#hooks.lost(this, event.reason);
  }
}
