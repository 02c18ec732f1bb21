/** `iscsi-nbd daemon` as a process of its own, and the commands that talk to it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { lazyBackend } from '../../src/cli/backend.js';
import { runCli } from '../../src/cli/program.js';

/** The built command; `ISCSI_NBD_CLI` names another build. */
export const CLI =
  process.env['ISCSI_NBD_CLI'] ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
/** An emulated processor starts Node in some ten seconds, and in more under load. */
const WAIT_MS_MAX = process.env['ISCSI_NBD_VM'] === '1' ? 240_000 : 60_000;

export type Outcome = { readonly code: number; readonly out: string; readonly err: string };

export class DaemonProcess {
  readonly folder: string;
  readonly control: string;
  out = '';
  log = '';
  /** What the last command that `run` began has printed so far. */
  runOut = '';
  #child: ChildProcess | null = null;
  #ended: Promise<number | null> = Promise.resolve(null);

  readonly #exports: readonly string[];
  readonly #retained: string;

  /**
   * With `devices` its LUNs become kernel devices, else sockets in its folder. What it retains
   * outlives it only with a folder for that, `retained`, which has to be in memory.
   */
  constructor(options: { readonly devices?: boolean; readonly retained?: string } = {}) {
    this.#retained = options.retained ?? '/proc/nowhere';
    this.folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-daemon-'));
    this.control = join(this.folder, 'c.sock');
    this.#exports = options.devices ? [] : ['--socket-directory', join(this.folder, 'nbd')];
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts it; resolves when it says that it is ready. */
  async start(...flags: readonly string[]): Promise<void> {
    this.launch(...flags);
    await this.until(() => this.out.includes('ready'));
  }

  launch(...flags: readonly string[]): void {
    this.out = '';
    const { folder } = this;
    const child = spawn(
      process.execPath,
      [
        ...[CLI, 'daemon', '--control', this.control, '--state-directory', join(folder, 'state')],
        ...[...this.#exports, ...flags],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: this.#environment() },
    );
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
    child.stdout.on('data', (text) => {
      this.out += text;
    });
    child.stderr.on('data', (text) => {
      this.log += text;
    });
  }

  /** The exit status; `null` when a signal ended it. */
  get ended(): Promise<number | null> {
    return this.#ended;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.#child?.kill(signal);
    return this.#ended;
  }

  /** Runs one command to its end, in this process: what it does is the same, and sooner. */
  async run(...args: readonly string[]): Promise<Outcome> {
    const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
    const outcome = { out: '', err: '' };
    this.runOut = '';
    stdout.on('data', (text) => {
      outcome.out += text;
      this.runOut += text;
    });
    stderr.on('data', (text) => {
      outcome.err += text;
    });
    const environment = { ...this.#environment(), ISCSI_NBD_CONTROL: this.control };
    const io = { stdin, stdout, stderr, environment, signals: new EventEmitter() };
    const code = await runCli(args, io, lazyBackend);
    return { code, ...outcome };
  }

  /** Runs one command to its end as a process. */
  runProcess(...args: readonly string[]): Promise<Outcome> {
    return new Promise((resolve) => {
      const env = { ...this.#environment(), ISCSI_NBD_CONTROL: this.control };
      execFile(
        process.execPath,
        [CLI, ...args],
        { env, timeout: WAIT_MS_MAX },
        (error, out, err) => {
          const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
          resolve({ code, out, err });
        },
      );
    });
  }

  /** What a command prints with `--json`; throws when it fails. */
  async json<T>(...args: readonly string[]): Promise<T> {
    const { code, out, err } = await this.run(...args, '--json');
    if (code !== 0) throw new Error(`${args.join(' ')}: status ${code}: ${err}`);
    return JSON.parse(out) as T;
  }

  /** Requests over one connection to the control socket, all at once; throws when one fails. */
  call(requests: readonly { method: string; params: unknown }[]): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.control);
      const results: unknown[] = [];
      createInterface({ input: socket }).on('line', (line) => {
        const message = JSON.parse(line) as { result?: unknown; error?: unknown };
        if (message.error !== undefined) reject(new Error(line));
        results.push(message.result);
        if (results.length === requests.length) {
          socket.destroy();
          resolve(results);
        }
      });
      for (const [id, request] of requests.entries()) {
        socket.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...request })}\n`);
      }
    });
  }

  async until(isSo: () => boolean | Promise<boolean>): Promise<void> {
    const end = Date.now() + WAIT_MS_MAX;
    while (!(await isSo())) {
      if (Date.now() > end) throw new Error(`it did not come about in time; log:\n${this.log}`);
      await sleep(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child !== null && child.exitCode === null && child.signalCode === null) {
      await this.stop('SIGKILL');
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #environment(): NodeJS.ProcessEnv {
    // No name of the host: what is tested must not depend on it.
    const name = { ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:host' };
    return { ...process.env, ...name, ISCSI_NBD_RETAINED: this.#retained };
  }
}
