import { setTimeout as sleep } from 'node:timers/promises';
import { type ProductError, productError } from '../base/errors.js';
import type { SessionState, Stack, StackExport } from '../config/contract.js';
import type { DeviceExporter } from '../lun/device-exporter.js';
import type { SessionStack } from './session-stack.js';

/** How often a close that waits for the devices' users asks again. */
const IN_USE_RETRY_MS = 500;

export type AttachedStackOptions = {
  readonly stack: SessionStack;
  readonly exporter: DeviceExporter;
  readonly keepDevices: boolean;
  readonly sessionState: () => SessionState;
};

/**
 * A stack of kernel devices as whoever attached them sees it. Closing it while a device is mounted
 * or held waits until that is over, since taking it away would lose what its users have not
 * written; a forced close does take it away. While the session is away a close is forced: what
 * waits could not be written anyway.
 */
export class AttachedStack implements Stack {
  readonly closed: Promise<void>;
  readonly #options: AttachedStackOptions;
  #waiting: Promise<void> | null = null;
  #forcing: Promise<void> | null = null;
  #settleClosed: { resolve: () => void; reject: (error: unknown) => void };

  constructor(options: AttachedStackOptions) {
    this.#options = options;
    let settle = { resolve: () => {}, reject: (_error: unknown) => {} };
    this.closed = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.closed.catch(() => undefined);
    this.#settleClosed = settle;
    options.stack.closed.then(settle.resolve, settle.reject);
  }

  get sessionId(): string {
    return this.#options.stack.sessionId;
  }

  get exports(): readonly StackExport[] {
    return this.#options.stack.exports;
  }

  /**
   * With `keepDevices` the devices and the session stay for the next process, and this one is to
   * end: `force` takes them away all the same.
   */
  close(options: { readonly force?: boolean } = {}): Promise<void> {
    if (options.force === true) {
      this.#forcing ??= this.#closeForced();
      return this.#forcing;
    }
    if (this.#options.keepDevices) {
      this.#options.exporter.leave();
      this.#settleClosed.resolve();
      return Promise.resolve();
    }
    this.#waiting ??= this.#closeUnused().finally(() => {
      this.#waiting = null;
    });
    return this.#waiting;
  }

  /** The first try may join an orderly close that is under way, and fail with it. */
  async #closeForced(): Promise<void> {
    const { stack } = this.#options;
    await stack.close({ force: true }).catch(() => stack.close({ force: true }));
  }

  /** Lost writes, which the disk tells of once, are the caller's to hear of when all is gone. */
  async #closeUnused(): Promise<void> {
    let loss: ProductError | null = null;
    for (;;) {
      const error = await this.#options.stack.close().then(() => null, productError);
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
    if (loss !== null) throw loss;
  }

  /** An outage while the users are waited for is no reason to lose what they write. */
  async #whileInUse(): Promise<void> {
    do {
      await sleep(IN_USE_RETRY_MS);
    } while (this.#forcing === null && this.#isAway());
  }

  #isAway(): boolean {
    const { stack, sessionState } = this.#options;
    if (sessionState() === 'reconnecting') return true;
    return stack.units.some((unit) => unit.queue.mode === 'holding');
  }
}
