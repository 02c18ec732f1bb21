import { setTimeout as sleep } from 'node:timers/promises';
import { deferred } from '../base/deferred.js';
import { type ProductError, productError } from '../base/errors.js';
import type { LunExport, OpenSession } from '../config/contract.js';
import type { DaemonSession } from './daemon-session.js';
import type { SessionPlan } from './daemon-session-options.js';

/** How often a close that waits for the devices' users asks again. */
const IN_USE_RETRY_MS = 500;

export type AttachedSessionOptions = {
  readonly session: Pick<
    DaemonSession<SessionPlan>,
    'sessionId' | 'exports' | 'close' | 'leave' | 'stack'
  >;
  /** Resolves when the session has ended and its record says so. */
  readonly over: Promise<void>;
  readonly keepDevices: boolean;
};

/**
 * A session with kernel devices as the caller that attached them sees it. A close waits while a
 * device is mounted or held, since a removal would lose the data that its users have not written; a
 * forced close removes the device. While the session is away a close is forced: the writes that
 * wait could not reach the disk anyway.
 */
export class AttachedSession implements OpenSession {
  readonly closed: Promise<void>;
  readonly #options: AttachedSessionOptions;
  readonly #whenClosed = deferred<void>();
  #waiting: Promise<void> | null = null;
  #forcing: Promise<void> | null = null;
  #leaving: Promise<void> | null = null;

  constructor(options: AttachedSessionOptions) {
    this.#options = options;
    const { promise, resolve, reject } = this.#whenClosed;
    this.closed = promise;
    options.session.stack.closed.catch(reject);
    options.over.then(resolve, reject);
  }

  get sessionId(): string {
    return this.#options.session.sessionId;
  }

  get exports(): readonly LunExport[] {
    return this.#options.session.exports;
  }

  /**
   * With `keepDevices` the devices and the session stay for the next process, and this one is to
   * end: what was acknowledged is on the disks by then. `force` logs out all the same.
   */
  close(options: { readonly force?: boolean } = {}): Promise<void> {
    // What is being left is the next process's: it takes seconds, and a logout would end it there.
    if (this.#leaving !== null) return this.#leaving;
    if (options.force === true) {
      this.#forcing ??= this.#closeForced();
      return this.#forcing;
    }
    if (this.#options.keepDevices) {
      this.#leaving ??= this.#options.session.leave().then(this.#whenClosed.resolve);
      return this.#leaving;
    }
    this.#waiting ??= this.#closeUnused().finally(() => {
      this.#waiting = null;
    });
    return this.#waiting;
  }

  /** The first try may join an orderly close that is under way, and fail with it. */
  async #closeForced(): Promise<void> {
    const { session, over } = this.#options;
    await session.close({ force: true }).catch(() => session.close({ force: true }));
    await over;
  }

  /** Lost writes, which the disk reports once, are reported to the caller after the removal. */
  async #closeUnused(): Promise<void> {
    const { session, over } = this.#options;
    let loss: ProductError | null = null;
    for (;;) {
      const error = await session.close({ force: false }).then(() => null, productError);
      if (error === null) break;
      if (this.#forcing !== null) return this.#forcing;
      if (error.code === 'ERR_FLUSH_FAILED' && loss === null) {
        loss = error;
        continue;
      }
      if (error.code !== 'ERR_DEVICE_IN_USE') throw error;
      await this.#whileInUse();
      if (this.#forcing !== null) return this.#forcing;
    }
    await over;
    if (loss !== null) throw loss;
  }

  /** An outage while the users are waited for is no reason to lose what they write. */
  async #whileInUse(): Promise<void> {
    do {
      await sleep(IN_USE_RETRY_MS);
    } while (this.#forcing === null && this.#isHeld());
  }

  #isHeld(): boolean {
    return this.#options.session.stack.units.some((unit) => unit.queue.mode === 'holding');
  }
}
