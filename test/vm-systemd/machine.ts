/** A virtual machine that boots systemd from a disk of its own, made by scripts/vm/system. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Kernel, startMachine, type VirtualMachine } from './virtual-machine.js';

const PROJECT = join(import.meta.dirname, '../..');

export type Outcome = { readonly status: number; readonly output: string };
export type MachineOptions = {
  /** iscsi-nbd is installed in the machine; with this folder it is in /packages instead. */
  readonly packages?: string;
  readonly kernel?: Kernel;
  readonly suite?: 'bookworm' | 'trixie';
  /** Debian packages that are installed. */
  readonly programs?: readonly string[];
};

/** What scripts/test-parts/packages says of the machine. */
export function machineOfEnvironment(): MachineOptions {
  const { MACHINE_KERNEL, MACHINE_SUITE } = process.env;
  return {
    kernel: MACHINE_KERNEL === 'uml' ? 'uml' : '6.1',
    suite: MACHINE_SUITE === 'trixie' ? 'trixie' : 'bookworm',
  };
}

export class Machine {
  readonly folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-system-'));
  readonly #kernel: Kernel;
  readonly #waiting = new Map<number, (outcome: Outcome) => void>();
  #machine: VirtualMachine | null = null;
  #numbers = 0;
  #received = '';
  #hello: () => void = () => {};

  constructor({
    packages,
    kernel = '6.1',
    suite = 'bookworm',
    programs = [],
  }: MachineOptions = {}) {
    this.#kernel = kernel;
    const folders = packages === undefined ? [this.folder] : [this.folder, packages];
    const more = programs.flatMap((name) => ['--with', name]);
    const args = ['--kernel', kernel, '--suite', suite, ...more, ...folders];
    execFileSync(join(PROJECT, 'scripts/vm/system'), args, { stdio: 'inherit' });
  }

  /** Resolves when systemd takes commands, which is long before it has started everything. */
  async boot(): Promise<void> {
    const machine = await startMachine(this.folder, this.#kernel);
    this.#machine = machine;
    const ended = once(machine.process, 'exit').then(() => {
      throw this.#failure('ended before it took commands');
    });
    const up = new Promise<void>((resolve) => {
      this.#hello = resolve;
    });
    machine.agent
      .on('error', () => undefined)
      .on('data', (bytes: Buffer) => this.#take(String(bytes)));
    await Promise.race([up, ended]);
    ended.catch(() => undefined);
  }

  #take(text: string): void {
    const lines = (this.#received + text).split('\n');
    this.#received = lines.pop() ?? '';
    for (const line of lines) {
      const [number = '', status, output = ''] = line.split(' ');
      if (number === 'hello') this.#hello();
      const outcome = { status: Number(status), output: Buffer.from(output, 'base64').toString() };
      this.#waiting.get(Number(number))?.(outcome);
    }
  }

  /** Runs bash commands as root in the machine. */
  async try(commands: string): Promise<Outcome> {
    this.#numbers += 1;
    const number = this.#numbers;
    const answered = new Promise<Outcome>((resolve) => {
      this.#waiting.set(number, resolve);
    });
    this.#machine?.agent.write(`${number} ${Buffer.from(commands).toString('base64')}\n`);
    try {
      return await answered;
    } finally {
      this.#waiting.delete(number);
    }
  }

  /** The same, and they must succeed. Resolves to what they print. */
  async run(commands: string): Promise<string> {
    const { status, output } = await this.try(commands);
    if (status !== 0) throw new Error(`status ${status} of: ${commands}\n${output}`);
    return output.trim();
  }

  /** Ends the machine as an administrator does; resolves when it is off. */
  async shutDown(): Promise<void> {
    const machine = this.#machine;
    if (machine === null) return;
    const off = once(machine.process, 'exit');
    this.try(machine.powerOff).catch(() => undefined);
    await off;
    this.#machine = null;
  }

  /** What the kernel and the machine's own program have said. */
  log(): string {
    const read = (name: string) => {
      try {
        return readFileSync(join(this.folder, name), 'utf8');
      } catch {
        return '';
      }
    };
    return `${read('machine.log')}\n${read('console.log')}`;
  }

  #failure(what: string): Error {
    return new Error(`The machine ${what}.\n${this.log().slice(-4000)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const machine = this.#machine;
    if (machine?.process.kill('SIGKILL')) await once(machine.process, 'exit');
    machine?.agent.destroy();
    if (!process.env['KEEP']) rmSync(this.folder, { recursive: true, force: true });
  }
}
