import { setTimeout as sleep } from 'node:timers/promises';
import { ProductError } from '../base/errors.js';
import type { SessionState, Stack, StackExport } from './contract.js';
import type { DeviceExporter } from './device-exporter.js';
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
  #isForced = false;
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
      this.#isForced = true;
      return this.#options.stack.close({ force: true });
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

  async #closeUnused(): Promise<void> {
    for (;;) {
      try {
        await this.#options.stack.close();
        return;
      } catch (error) {
        if (!(error instanceof ProductError) || error.code !== 'ERR_DEVICE_IN_USE') throw error;
      }
      await this.#whileInUse();
      if (this.#isForced) return this.#options.stack.close({ force: true });
    }
  }

  /** A short outage while the users are waited for is no reason to lose what they write. */
  async #whileInUse(): Promise<void> {
    do {
      await sleep(IN_USE_RETRY_MS);
    } while (!this.#isForced && this.#options.sessionState() === 'reconnecting');
  }
}
