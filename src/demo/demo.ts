import { createHash, randomFillSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deferred } from '../base/deferred.js';
import { ProductError, UsageError } from '../base/errors.js';
import { configOf } from '../config/config.js';
import type {
  DemoHooks,
  OpenSession,
  ProductEvent,
  SessionOptions,
  TargetUrl,
} from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { kernelSupport } from '../io/nbd-support.js';
import { nbdAddon } from '../lun/device-exporter.js';
import { attach } from '../supervisor/attach.js';
import { serve } from '../supervisor/serve.js';
import { type DemoDisk, DeviceDisk, SocketDisk } from './demo-client.js';
import { DemoReport } from './demo-report.js';
import { DemoTarget } from './demo-target.js';

const MIB = 1 << 20;
const DISK_BYTES = 16 * MIB;
const REQUEST_BYTES = MIB / 4;
const REQUEST_COUNT = DISK_BYTES / REQUEST_BYTES;
const OUTAGE_MS = 2000;
const RECONNECT_INTERVAL_SECONDS = 0.5;
/** The whole demo takes three seconds; many more on an emulated CPU that is shared. */
const DEMO_MS_MAX = 60_000;
/** The thread pool of the process has four threads; a held write keeps one. */
const DEVICE_REQUESTS_AT_ONCE = 2;
const SOCKET_REQUESTS_AT_ONCE = 16;

/**
 * Shows on this machine alone what the program is for: a target, a session to it, a disk, an
 * outage in the middle of a write, and every byte in its place afterwards. The disk is a kernel
 * device where there can be one, else an NBD export on a socket.
 *
 * Rejects with ProductError `ERR_DEMO_MISMATCH` where anything is not as it has to be, with
 * UsageError 33 after a minute, and with what `hooks.signal` aborts with. Nothing is left behind.
 */
export async function runDemo(hooks: DemoHooks): Promise<void> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(tooSlow()), DEMO_MS_MAX);
  const demo = new Demo(hooks, AbortSignal.any([hooks.signal, timeout.signal]));
  try {
    await demo.run();
  } finally {
    clearTimeout(timer);
    await demo.cleanUp();
  }
}

class Demo {
  readonly #report: DemoReport;
  readonly #signal: AbortSignal;
  readonly #aborted: Promise<never>;
  /** What the whole disk has to hold at the end. */
  readonly #pattern = randomFillSync(Buffer.allocUnsafe(DISK_BYTES));
  readonly #events: ProductEvent[] = [];
  #target: DemoTarget | null = null;
  #stack: OpenSession | null = null;
  #disk: DemoDisk | null = null;
  /** Requests sent and not answered. */
  #requestsOut = 0;
  #requestsAtOnce = SOCKET_REQUESTS_AT_ONCE;
  #directory: string | null = null;

  constructor(hooks: DemoHooks, signal: AbortSignal) {
    this.#report = new DemoReport(hooks);
    this.#signal = signal;
    this.#aborted = new Promise((_resolve, reject) => {
      const stop = () => reject(signal.reason);
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
    });
    this.#aborted.catch(() => undefined);
  }

  async run(): Promise<void> {
    const target = await this.#startTarget();
    const stack = await this.#connect(target);
    const disk = await this.#open(stack);
    await Promise.race([this.#show(target, stack, disk), this.#aborted]);
    await this.#end(target, stack, disk);
  }

  /** After `run`, however it ended. A held request ends only with the session: that goes first. */
  async cleanUp(): Promise<void> {
    await this.#stack?.close({ force: true });
    await this.#disk?.close().catch(() => undefined);
    await this.#target?.close();
    if (this.#directory !== null) await rm(this.#directory, { recursive: true, force: true });
  }

  async #startTarget(): Promise<DemoTarget> {
    const name = `iqn.2025-01.local.iscsi-nbd:demo-${process.pid}`;
    const target = await DemoTarget.start(name, DISK_BYTES);
    this.#target = target;
    const words = `${name} listens on ${target.portal}, one disk of ${mib(DISK_BYTES)} in memory`;
    this.#report.tell('target', words, { name, portal: target.portal, sizeBytes: DISK_BYTES });
    return target;
  }

  async #connect(target: DemoTarget): Promise<OpenSession> {
    const url: TargetUrl = {
      host: target.host,
      port: target.port,
      targetName: target.name,
      lun: 0,
    };
    const hooks = {
      onEvent: (event: ProductEvent) => this.#event(event),
      signal: this.#signal,
    };
    const support = await kernelSupport(nbdAddon);
    if (support.supported) {
      this.#requestsAtOnce = DEVICE_REQUESTS_AT_ONCE;
      this.#stack = await attach(url, { ...demoOptions(), boot: false }, hooks);
    } else {
      this.#report.tell('disk', `on a socket, not as /dev/nbdX. ${support.reason}`, {
        kernelDevice: false,
        reason: support.reason,
      });
      this.#directory = await mkdtemp(join(tmpdir(), 'iscsi-nbd-demo-'));
      const socketPath = join(this.#directory, 'nbd.sock');
      this.#stack = await serve(url, { ...demoOptions(), socketPath }, hooks);
    }
    const { sessionId } = this.#stack;
    const { isid } = target;
    this.#report.tell('session', `${sessionId} is logged in (ISID ${isid})`, { sessionId, isid });
    return this.#stack;
  }

  async #open(stack: OpenSession): Promise<DemoDisk> {
    const [entry] = stack.exports;
    const { device, socket, uri, sizeBytes, blockSizeBytes } = entry ?? fault('there is no disk');
    if (device !== undefined) this.#disk = await DeviceDisk.open(device);
    else this.#disk = await SocketDisk.open(socket ?? fault('the disk has no name'));
    const words = `${device ?? uri}: ${mib(sizeBytes)}, ${blockSizeBytes}-byte blocks`;
    this.#report.tell('disk', words, { device, socket, uri, sizeBytes, blockSizeBytes });
    return this.#disk;
  }

  async #show(target: DemoTarget, stack: OpenSession, disk: DemoDisk): Promise<void> {
    const half = REQUEST_COUNT / 2;
    const first = await this.#write(disk, 0, half);
    this.#report.tell('write', `${half} requests, ${mib(DISK_BYTES / 2)}, ${rateOf(first)}`, first);
    const second = await this.#writeThroughOutage(target, stack, disk);
    const seconds = (second.slowestMs / 1000).toFixed(2);
    const words = `${half} more requests, no error; the slowest waited ${seconds} s`;
    this.#report.tell('write', words, { ...second, errors: 0 });
    await this.#verify(target, disk);
  }

  /** Writes requests `from … to` of the pattern; `onDone` gets the number that is done. */
  async #write(
    disk: DemoDisk,
    from: number,
    to: number,
    onDone: (count: number) => void = () => undefined,
  ): Promise<{ requests: number; bytes: number; tookMs: number; slowestMs: number }> {
    const startedAtMs = performance.now();
    let next = from;
    let done = 0;
    let slowestMs = 0;
    const worker = async () => {
      while (next < to && !this.#signal.aborted) {
        const offset = next * REQUEST_BYTES;
        next += 1;
        const sentAtMs = performance.now();
        this.#requestsOut += 1;
        await disk.write(offset, this.#pattern.subarray(offset, offset + REQUEST_BYTES));
        this.#requestsOut -= 1;
        slowestMs = Math.max(slowestMs, performance.now() - sentAtMs);
        done += 1;
        onDone(done);
      }
    };
    await Promise.all(Array.from({ length: this.#requestsAtOnce }, worker));
    await disk.flush();
    const requests = to - from;
    const tookMs = Math.round(performance.now() - startedAtMs);
    return { requests, bytes: requests * REQUEST_BYTES, tookMs, slowestMs: Math.round(slowestMs) };
  }

  async #writeThroughOutage(target: DemoTarget, stack: OpenSession, disk: DemoDisk) {
    const before = { sessionId: stack.sessionId, isid: target.isid };
    const halfway = deferred<void>();
    const half = REQUEST_COUNT / 2;
    const writing = this.#write(disk, half, REQUEST_COUNT, (count) => {
      if (count === half / 2) halfway.resolve();
    });
    const [written, requestsHeld] = await Promise.all([
      writing,
      halfway.promise.then(() => this.#outage(target, half / 2)),
    ]);
    const isSame =
      stack.sessionId === before.sessionId &&
      target.isid === before.isid &&
      this.#events.every((event) => event.sessionId === before.sessionId);
    check(isSame, 'the session came back as another one');
    const isHeld = this.#events.some((event) => event.event === 'deviceHeld');
    check(isHeld && requestsHeld > 0, 'no request was held in the outage');
    check(written.slowestMs >= OUTAGE_MS * 0.9, 'no request has waited for the target');
    return written;
  }

  /**
   * Resolves with the count of requests that were held when the target came back. The event
   * `deviceHeld` counts them when the outage begins: none, where every writer was just between two.
   */
  async #outage(target: DemoTarget, requestsDone: number): Promise<number> {
    await target.stop();
    const words = `the target is gone, with ${requestsDone} requests of a second write done`;
    this.#report.tell('outage', words, { target: 'stopped', requestsDone });
    await sleep(OUTAGE_MS, undefined, { signal: this.#signal });
    const requestsHeld = this.#requestsOut;
    await target.startAgain();
    const held = `${requestsHeld} requests (${mib(requestsHeld * REQUEST_BYTES)}) are held`;
    this.#report.tell('outage', `the target listens on ${target.portal} again; ${held}`, {
      target: 'started',
      requestsHeld,
    });
    return requestsHeld;
  }

  /** Three witnesses: what was written, what the disk reads, and what the target's disk holds. */
  async #verify(target: DemoTarget, disk: DemoDisk): Promise<void> {
    const reader = createHash('sha256');
    for (let offset = 0; offset < DISK_BYTES; offset += MIB) {
      reader.update(await disk.read(offset, MIB));
    }
    const read = reader.digest('hex');
    const written = sha256(this.#pattern);
    const stored = sha256(target.disk.read(0, DISK_BYTES));
    check(read === written, `the disk reads other data (${read}) than were written (${written})`);
    check(stored === written, `the target holds other data (${stored}) than were written`);
    const words = `${mib(DISK_BYTES)} are what was written, here and at the target`;
    this.#report.tell('read', `${words} (SHA-256 ${written.slice(0, 16)}…)`, { sha256: written });
  }

  async #end(target: DemoTarget, stack: OpenSession, disk: DemoDisk): Promise<void> {
    await disk.close();
    this.#disk = null;
    await stack.close();
    this.#stack = null;
    check(target.logouts === 1 && target.sessionCount === 0, 'the target saw no logout');
    const [violation] = target.violations;
    check(violation === undefined, `the target complains: ${violation}`);
    this.#report.tell('end', 'logged out; the disk and the session are gone', {
      logouts: target.logouts,
    });
    const took = `${(this.#report.elapsedMs / 1000).toFixed(1)} s`;
    this.#report.tell('result', `passed in ${took}`, { passed: true });
  }

  #event(event: ProductEvent): void {
    this.#events.push(event);
    this.#report.event(event);
    if (event.event !== 'sessionState') return;
    const { from, to, reason, sessionId } = event;
    if (to === 'reconnecting') {
      const words = `session ${sessionId} is reconnecting (${reason}); no client sees an error`;
      this.#report.tellPeople('outage', words);
    }
    if (from === 'reconnecting' && to === 'loggedIn') {
      const isid = this.#target?.isid;
      const words = `session ${sessionId} is back (ISID ${isid}); held requests continue`;
      this.#report.tellPeople('outage', words);
    }
  }
}

function demoOptions(): SessionOptions {
  const { values } = configOf({
    initiatorName: 'iqn.2025-01.local.iscsi-nbd:demo-initiator',
    reconnectIntervalSeconds: RECONNECT_INTERVAL_SECONDS,
  });
  const { initiatorName = fault('the demo has no name') } = values;
  return { ...values, initiatorName };
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) fault(what);
}

function fault(what: string): never {
  throw new ProductError('ERR_DEMO_MISMATCH', `The demo failed: ${what}.`);
}

function tooSlow(): UsageError {
  return new UsageError(
    `The demo did not end within ${DEMO_MS_MAX / 1000} s; this machine may be busy. Try again.`,
    { code: 'ERR_DEMO_TIMEOUT', exitCode: EXIT_CODES.timedOut.code },
  );
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(bytes % MIB === 0 ? 0 : 1)} MiB`;
}

function rateOf(written: { readonly bytes: number; readonly tookMs: number }): string {
  return `${Math.round(written.bytes / MIB / (Math.max(1, written.tookMs) / 1000))} MiB/s`;
}
