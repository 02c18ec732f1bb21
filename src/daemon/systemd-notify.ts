import { setTimeout as sleep } from 'node:timers/promises';
import { getSystemErrorName } from 'node:util';
import type { Logger } from '../config/log.js';
import { native } from '../io/native.js';

/** A message that is not taken in this time is given up; the next one may get through. */
const NOTIFY_MS_MAX = 5000;
const RETRY_MS = 50;
/** A status is for people, and a datagram has to fit the socket's buffer. */
const STATUS_LENGTH_MAX = 1024;
/** What ends and begins around the wait for LUNs takes at most this long. */
const START_SPARE_MS = 60_000;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Tells systemd how the service is (sd_notify(3)), by datagrams of this process itself, so that the
 * unit's NotifyAccess=main is enough. Without NOTIFY_SOCKET nothing is done.
 */
export class SystemdNotify {
  readonly #environment: Environment;
  readonly #log: Logger;
  readonly #socketPath: string | null;
  #watchdog: NodeJS.Timeout | null = null;

  constructor(environment: Environment, log: Logger) {
    this.#environment = environment;
    this.#log = log;
    this.#socketPath = this.#checkedPath();
  }

  /** The start may take this long, whatever the unit's TimeoutStartSec says. */
  async starting(waitMs: number): Promise<void> {
    await this.#send([`EXTEND_TIMEOUT_USEC=${Math.ceil((waitMs + START_SPARE_MS) * 1000)}`]);
  }

  /**
   * The service is ready; from now on the watchdog is fed, by the thread that serves the devices,
   * or when all the threads that do have responded: one that hangs there is restarted.
   */
  async ready(status: string, responded: () => Promise<void>): Promise<void> {
    await this.#send(['READY=1', statusOf(status)]);
    const intervalMs = this.#watchdogMs() / 2;
    if (intervalMs <= 0 || this.#socketPath === null) return;
    const feed = () => responded().then(() => this.#send(['WATCHDOG=1']));
    this.#watchdog = setInterval(feed, intervalMs);
    this.#watchdog.unref();
  }

  async status(status: string): Promise<void> {
    await this.#send([statusOf(status)]);
  }

  async stopping(): Promise<void> {
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    await this.#send(['STOPPING=1', statusOf('ending')]);
  }

  /** NOTIFY_SOCKET: an absolute path, or '@' and an abstract name (sd_notify(3)). */
  #checkedPath(): string | null {
    const { NOTIFY_SOCKET: path } = this.#environment;
    if (!path) return null;
    if (/^[/@][^\0]+$/.test(path)) return path;
    this.#log.warn({ path }, 'NOTIFY_SOCKET is not a unix socket: systemd is not notified');
    return null;
  }

  /** WATCHDOG_USEC in milliseconds when it is meant for this process, else 0 (sd_notify(3)). */
  #watchdogMs(): number {
    const { WATCHDOG_USEC: microseconds, WATCHDOG_PID: pid } = this.#environment;
    if (pid !== undefined && pid !== String(process.pid)) return 0;
    return /^\d{1,15}$/.test(microseconds ?? '') ? Number(microseconds) / 1000 : 0;
  }

  async #send(assignments: readonly string[]): Promise<void> {
    if (this.#socketPath === null) return;
    const text = assignments.join('\n');
    const startedAtMs = performance.now();
    for (;;) {
      const errno = native.sendNotify(this.#socketPath, text);
      if (errno === 0) return;
      const reason = getSystemErrorName(errno);
      const isFull = reason === 'EAGAIN' || reason === 'ENOBUFS';
      if (!isFull || performance.now() - startedAtMs > NOTIFY_MS_MAX) {
        this.#log.warn({ reason, message: assignments[0] }, 'systemd does not take a message');
        return;
      }
      await sleep(RETRY_MS);
    }
  }
}

/** A line of its own: what a target's name may bring along must not become another assignment. */
function statusOf(status: string): string {
  return `STATUS=${status.replace(/\p{Cc}/gu, ' ').slice(0, STATUS_LENGTH_MAX)}`;
}
