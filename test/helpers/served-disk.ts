/** `iscsi-nbd serve` as a process of its own, with its events, and clients that use it. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The built command; `ISCSI_NBD_CLI` names another build. */
const CLI =
  process.env['ISCSI_NBD_CLI'] ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
/** In the VM the processor may be an emulated one, some twenty times slower. */
const WAIT_MS_MAX = process.env['ISCSI_NBD_VM'] === undefined ? 60_000 : 180_000;

export type ServedEvent = {
  readonly event: string;
  readonly time: string;
  readonly sessionId: string;
  readonly from?: string;
  readonly to?: string;
  readonly reason?: string;
  readonly requests?: number;
};

export class ServedDisk {
  readonly socket: string;
  readonly uri: string;
  readonly events: ServedEvent[] = [];
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  #errors = '';

  private constructor(folder: string, url: string, flags: readonly string[]) {
    this.#folder = folder;
    this.socket = join(folder, 'nbd.sock');
    this.uri = `nbd+unix:///?socket=${this.socket}`;
    const args = [CLI, 'serve', url, '--socket', this.socket, '--json', ...flags];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    this.#ended = new Promise((resolve) => child.once('exit', () => resolve()));
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.events.push(JSON.parse(line) as ServedEvent);
    });
    child.stderr.on('data', (text) => {
      this.#errors = (this.#errors + text).slice(-4000);
    });
  }

  static async start(url: string, ...flags: readonly string[]): Promise<ServedDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-served-'));
    const served = new ServedDisk(folder, url, flags);
    await served.heard((event) => event.event === 'ready');
    return served;
  }

  /** The first event since `after` (a count of events) that is so; waits for it. */
  async heard(isSo: (event: ServedEvent) => boolean, after = 0): Promise<ServedEvent> {
    const deadlineMs = performance.now() + WAIT_MS_MAX;
    for (;;) {
      const found = this.events.slice(after).find(isSo);
      if (found !== undefined) return found;
      if (this.#process.exitCode !== null || performance.now() > deadlineMs) {
        const heard = this.events.map((event) => JSON.stringify(event)).join('\n');
        throw new Error(`the event never came; standard error:\n${this.#errors}\n${heard}`);
      }
      await sleep(20);
    }
  }

  /** Largest resident memory of the process so far, in bytes. */
  get peakMemoryBytes(): number {
    const status = readFileSync(`/proc/${this.#process.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  get sessionIds(): ReadonlySet<string> {
    return new Set(this.events.map((event) => event.sessionId));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null) this.#process.kill('SIGTERM');
    const inTime = await Promise.race([
      this.#ended.then(() => true),
      sleep(10_000, false, { ref: false }),
    ]);
    if (!inTime) this.#process.kill('SIGKILL');
    await this.#ended;
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** Runs a command; resolves to what it printed, rejects with it when it fails. */
export function run(
  command: string,
  args: readonly string[],
  options: {
    readonly cwd?: string;
    readonly timeoutMs?: number;
    readonly env?: NodeJS.ProcessEnv;
  } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const { cwd, env, timeoutMs = 120_000 } = options;
    execFile(
      command,
      [...args],
      { cwd, env, timeout: timeoutMs, maxBuffer: 16 << 20 },
      (error, stdout, stderr) => {
        const text = `${stdout}\n${stderr}`;
        if (error) reject(new Error(`${command} failed: ${error.message}\n${text.slice(-4000)}`));
        else resolve(text);
      },
    );
  });
}

/** Runs lines of Python with libnbd's handle `h` connected to `uri`. */
export function nbdsh(uri: string, lines: readonly string[]): Promise<string> {
  // The system's own Python has the package, whatever other one comes first in the path.
  const env = { ...process.env, PATH: `/usr/bin:/bin:${process.env['PATH'] ?? ''}` };
  return run('nbdsh', ['-u', uri, '-c', lines.join('\n')], { env });
}
