import type { Clock } from '../base/clock.js';
import { QueueDepthControl } from '../bridge/queue-depth-control.js';
import type { ScsiDisk } from '../bridge/scsi-disk.js';
import type { Session } from '../iscsi/session/session.js';

/** Lets a target that has too much to do (BUSY, TASK SET FULL) have fewer commands at a time. */
export class QueueDepthDriver {
  readonly #control: QueueDepthControl;
  readonly #session: Session;
  readonly #clock: Clock;
  #cancelStep: (() => void) | null = null;

  constructor(session: Session, clock: Clock) {
    this.#session = session;
    this.#clock = clock;
    this.#control = new QueueDepthControl(session.config.queueDepthMax);
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
    this.#session.flow.limitLun(lun, facts.commandQueuing ? Number.POSITIVE_INFINITY : 1);
  }

  congested(): void {
    this.#control.congested(this.#clock.nowMs(), this.#session.commandsInFlight);
    this.#apply();
  }

  /** The session is over: no timer is kept for it. */
  close(): void {
    this.#cancelStep?.();
    this.#cancelStep = null;
  }

  #apply(): void {
    this.#session.flow.limitDepth(this.#control.depth);
    this.close();
    const { nextStepAtMs } = this.#control;
    if (nextStepAtMs === Number.POSITIVE_INFINITY || this.#session.state === 'closed') return;
    this.#cancelStep = this.#clock.at(nextStepAtMs, () => {
      this.#control.timeReached(this.#clock.nowMs());
      this.#apply();
    });
  }
}
