/** The compiled command as a user runs it: a process with its own folder for all it leaves. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The built command; `ISCSI_NBD_CLI` names another build. */
const MAIN =
  process.env['ISCSI_NBD_CLI'] ?? fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
export const INITIATOR = 'iqn.2001-04.com.example:cli-tests';

export type CommandResult = { readonly code: number; readonly out: string; readonly err: string };

/** A folder where processes put temporary files and sockets. */
export class Workplace {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<Workplace> {
    return new Workplace(await mkdtemp(join(tmpdir(), 'iscsi-nbd-cli-')));
  }

  file(...names: readonly string[]): string {
    return join(this.path, ...names);
  }

  /** Everything in it, sorted. */
  async content(): Promise<string[]> {
    return (await readdir(this.path)).sort();
  }

  start(args: readonly string[], options: { environment?: Record<string, string> } = {}) {
    return new CommandProcess(args, { ...this.#environment(), ...options.environment });
  }

  /** Runs the command to its end. */
  run(args: readonly string[], options: { environment?: Record<string, string> } = {}) {
    return this.start(args, options).result;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return rm(this.path, { recursive: true, force: true });
  }

  #environment(): Record<string, string> {
    return {
      PATH: process.env['PATH'] ?? '',
      HOME: this.path,
      TMPDIR: this.path,
      ISCSI_NBD_INITIATOR_NAME: INITIATOR,
    };
  }
}

export class CommandProcess {
  readonly result: Promise<CommandResult>;
  out = '';
  err = '';
  readonly #child: ChildProcess;
  #ended = false;
  #changed: () => void = () => {};

  constructor(args: readonly string[], environment: Record<string, string>) {
    if (!existsSync(MAIN)) throw new Error('dist/ is missing: run scripts/setup');
    // pdeathsig: a test process that dies takes the command along.
    const node = ['--pdeathsig', 'KILL', process.execPath, MAIN];
    const child = spawn('setpriv', [...node, ...args], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stdout.on('data', (chunk) => {
      this.out += chunk;
      this.#changed();
    });
    child.stderr.on('data', (chunk) => {
      this.err += chunk;
      this.#changed();
    });
    this.result = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        this.#ended = true;
        this.#changed();
        resolve({ code: code ?? (signal === null ? -1 : -2), out: this.out, err: this.err });
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** The first `count` lines of standard output, as soon as they are printed. */
  async lines(count: number): Promise<string[]> {
    for (;;) {
      const lines = this.out.split('\n');
      if (lines.length > count) return lines.slice(0, count);
      if (this.#ended) throw new Error(`it ended before line ${count}: ${this.out}${this.err}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }

  /** Ends it if it runs, whatever it does. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) this.#child.kill('SIGKILL');
    await this.result;
  }
}

/** Another program, as a judge: what it prints; rejects when it fails. */
export function judge(program: string, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, [...args], { maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(' ')}: ${stdout}${stderr}`));
      else resolve(stdout);
    });
  });
}
