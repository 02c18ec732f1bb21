import { spawn } from 'node:child_process';
import type { Logger } from './log.js';

/** A message that is not taken in this time is given up; the next one may get through. */
const NOTIFY_MS_MAX = 5000;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Tells systemd how the service is (sd_notify(3)), through its own systemd-notify(1), for Node has
 * no datagram sockets of the unix kind. The unit needs NotifyAccess=all. Without NOTIFY_SOCKET
 * nothing is done.
 */
export class SystemdNotify {
  readonly #environment: Environment;
  readonly #log: Logger;
  #watchdog: NodeJS.Timeout | null = null;

  constructor(environment: Environment, log: Logger) {
    this.#environment = environment;
    this.#log = log;
  }

  /** The service is ready; from now on the watchdog is fed. */
  async ready(status: string): Promise<void> {
    await this.#send(['READY=1', `STATUS=${status}`]);
    const intervalMs = this.#watchdogMs() / 2;
    if (intervalMs <= 0) return;
    this.#watchdog = setInterval(() => this.#send(['WATCHDOG=1']), intervalMs);
    this.#watchdog.unref();
  }

  async status(status: string): Promise<void> {
    await this.#send([`STATUS=${status}`]);
  }

  async stopping(): Promise<void> {
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    await this.#send(['STOPPING=1']);
  }

  /** WATCHDOG_USEC in milliseconds when it is meant for this process, else 0 (sd_notify(3)). */
  #watchdogMs(): number {
    const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = this.#environment;
    if (pid !== undefined && pid !== String(process.pid)) return 0;
    return /^\d{1,15}$/.test(microseconds ?? '') ? Number(microseconds) / 1000 : 0;
  }

  #send(assignments: readonly string[]): Promise<void> {
    if (!this.#environment['NOTIFY_SOCKET']) return Promise.resolve();
    return new Promise((resolve) => {
      const child = spawn('systemd-notify', [...assignments], {
        stdio: 'ignore',
        env: { ...this.#environment },
        timeout: NOTIFY_MS_MAX,
      });
      child.once('error', (error) => {
        this.#log.warn({ reason: error.message }, 'systemd-notify cannot be run');
        resolve();
      });
      child.once('exit', () => resolve());
    });
  }
}
