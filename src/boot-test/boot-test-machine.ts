import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProductError } from '../base/errors.js';
import { QmpClient, type QmpEvent } from './boot-test-qmp.js';

/** QEMU reads its firmware and opens the disk; a busy machine may take its time. */
const START_MS_MAX = 60_000;
/** An orderly end writes what is in QEMU's caches, which waits for a target that is away. */
const QUIT_MS_MAX = 10_000;
const SCREENSHOT_MS_MAX = 10_000;
const COMPLAINT_BYTES_MAX = 4096;
/** Descriptors 3 and 4 are sockets: console and control (`boot-test-command`). */
const STDIO = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] as const;

type MachineHooks = {
  onConsole(chunk: Buffer): void;
  onEvent(event: QmpEvent): void;
};

/**
 * One running QEMU. It dies with this process, however that ends: setpriv(1) has the kernel kill
 * it. It is in a process group of its own, so that Ctrl-C on a terminal is for us alone.
 */
export class BootMachine {
  /** Resolves with QEMU's own words, empty when it has none, when the process is gone. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #qmp: QmpClient;
  #complaint = Buffer.alloc(0);
  #isGone = false;
  #version = '';
  #accelerator: 'kvm' | 'tcg' = 'tcg';

  private constructor(child: ChildProcess, hooks: MachineHooks) {
    this.#child = child;
    const [, , stderr, console, control] = child.stdio;
    stderr?.on('data', (chunk: Buffer) => {
      this.#complaint = Buffer.concat([this.#complaint, chunk]).subarray(-COMPLAINT_BYTES_MAX);
    });
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#isGone = true;
        resolve(error.message);
      });
      child.once('close', () => {
        this.#isGone = true;
        resolve(this.#words());
      });
    });
    const consoleSocket = socketOf(console);
    consoleSocket.on('data', hooks.onConsole);
    // The end of the process is what tells.
    consoleSocket.on('error', () => undefined);
    this.#qmp = new QmpClient(socketOf(control), hooks.onEvent);
  }

  /** Rejects with ProductError `ERR_QEMU` in QEMU's words when it does not start. */
  static async start(
    command: { readonly setpriv: string; readonly qemu: string; readonly args: readonly string[] },
    hooks: MachineHooks,
  ): Promise<BootMachine> {
    const child = spawn(
      command.setpriv,
      ['--pdeathsig', 'KILL', ...confinement(), '--', command.qemu, ...command.args],
      // Secrets may be in our environment; QEMU needs nothing of it.
      { stdio: [...STDIO], detached: true, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' } },
    );
    const machine = new BootMachine(child, hooks);
    try {
      await machine.#greet();
      return machine;
    } catch (cause) {
      await machine.kill();
      const words = (await machine.ended) || (cause as Error).message;
      throw new ProductError('ERR_QEMU', `QEMU does not start: ${words}`, { cause });
    }
  }

  get version(): string {
    return this.#version;
  }

  get accelerator(): 'kvm' | 'tcg' {
    return this.#accelerator;
  }

  /** Why the machine stands still, by QEMU's name for it, e.g. `io-error`. */
  async status(): Promise<string> {
    const answer = await this.#qmp.execute('query-status');
    return String(fieldOf(answer, 'status'));
  }

  /** Writes what the screen shows to a file; rejects with ProductError `ERR_QMP`. */
  async screenshot(filename: string, format: 'png' | 'ppm'): Promise<void> {
    const args = format === 'png' ? { filename, format } : { filename };
    await within(this.#qmp.execute('screendump', args), SCREENSHOT_MS_MAX);
  }

  /** Ends it with all its data written; `false` when it had to be killed instead. */
  async quit(): Promise<boolean> {
    if (this.#isGone) return true;
    this.#qmp.execute('quit').catch(() => undefined);
    try {
      await within(this.ended, QUIT_MS_MAX);
      return true;
    } catch {
      await this.kill();
      return false;
    }
  }

  async kill(): Promise<void> {
    if (!this.#isGone) this.#child.kill('SIGKILL');
    await this.ended;
  }

  async #greet(): Promise<void> {
    const asked = (async () => {
      this.#version = await this.#qmp.version;
      await this.#qmp.execute('qmp_capabilities');
      const kvm = await this.#qmp.execute('query-kvm');
      this.#accelerator = fieldOf(kvm, 'enabled') === true ? 'kvm' : 'tcg';
    })();
    await within(asked, START_MS_MAX);
  }

  /** What QEMU wrote to its standard error, without its own name, as one line. */
  #words(): string {
    const lines = this.#complaint.toString('utf8').split('\n');
    const told = lines.filter((line) => line !== '' && !/: warning: /.test(line));
    return told.map((line) => line.replace(/^\S*qemu\S*: /, '')).join('; ');
  }
}

/** What the image is not trusted with, should it break out of the machine. */
function confinement(): string[] {
  // Only root can give them up, and only root has them.
  const capabilities = ['--bounding-set', '-all', '--inh-caps', '-all'];
  return ['--no-new-privs', ...(process.geteuid?.() === 0 ? capabilities : [])];
}

function socketOf(stream: unknown): Socket {
  if (stream instanceof Socket) return stream;
  throw new ProductError('ERR_QEMU', 'QEMU cannot be started: no descriptor is left');
}

async function within<T>(work: Promise<T>, limitMs: number): Promise<T> {
  const timer = new AbortController();
  const late = sleep(limitMs, undefined, { signal: timer.signal }).then(() => {
    throw new ProductError('ERR_QMP', `no answer from QEMU within ${limitMs / 1000} s`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    timer.abort();
  }
}

function fieldOf(answer: unknown, name: string): unknown {
  return typeof answer === 'object' && answer !== null
    ? (answer as Record<string, unknown>)[name]
    : undefined;
}
