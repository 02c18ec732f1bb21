import type { Clock } from '../base/clock.js';
import { QueueDepthControl } from '../bridge/queue-depth-control.js';
import type { ScsiDisk } from '../bridge/scsi-disk.js';
import type { Session } from '../iscsi/session/session.js';

/**
 * Lets a target that has too much to do (BUSY, TASK SET FULL) have fewer commands at a time. If its
 * disks have several paths, each of the sessions has the same bound.
 */
export class QueueDepthDriver {
  readonly #control: QueueDepthControl;
  /** The first one is that which people know. */
  readonly #sessions: Session[];
  readonly #clock: Clock;
  #cancelStep: (() => void) | null = null;

  constructor(session: Session, clock: Clock) {
    this.#sessions = [session];
    this.#clock = clock;
    this.#control = new QueueDepthControl(session.config.queueDepthMax);
  }

  /** One more session of the same disks. */
  add(session: Session): void {
    this.#sessions.push(session);
    session.flow.limitDepth(this.#control.depth);
  }

  remove(session: Session): void {
    const at = this.#sessions.indexOf(session);
    if (at > 0) this.#sessions.splice(at, 1);
  }

  get depth(): number {
    return this.#control.depth;
  }

  /** Commands in flight at most, while the target takes that many. */
  get depthMax(): number {
    return this.#control.depthMax;
  }

  limit(depthMax: number): void {
    this.#control.limit(depthMax);
    this.#apply();
  }

  /** A disk without command queuing (CMDQUE and BQUE of INQUIRY) takes one command at a time. */
  limitDisk({ lun, facts }: Pick<ScsiDisk, 'lun' | 'facts'>): void {
    const depthMax = facts.commandQueuing ? Number.POSITIVE_INFINITY : 1;
    for (const { flow } of this.#sessions) flow.limitLun(lun, depthMax);
  }

  congested(): void {
    const inFlight = this.#sessions.map(({ commandsInFlight }) => commandsInFlight);
    this.#control.congested(this.#clock.nowMs(), Math.max(...inFlight));
    this.#apply();
  }

  /** The session is over: no timer is kept for it. */
  close(): void {
    this.#cancelStep?.();
    this.#cancelStep = null;
  }

  #apply(): void {
    for (const { flow } of this.#sessions) flow.limitDepth(this.#control.depth);
    this.close();
    const { nextStepAtMs } = this.#control;
    if (nextStepAtMs === Number.POSITIVE_INFINITY || this.#sessions[0]?.state === 'closed') return;
    this.#cancelStep = this.#clock.at(nextStepAtMs, () => {
      this.#control.timeReached(this.#clock.nowMs());
      this.#apply();
    });
  }
}
