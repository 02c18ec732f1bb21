/** A virtual machine that boots systemd from a disk of its own, made by scripts/vm/system. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const PROJECT = join(import.meta.dirname, '../..');
/** acpi_pm: on a busy machine the kernel measures the TSC wrongly; its seconds are too short. */
const KERNEL_LINE =
  'console=ttyS0 loglevel=4 panic=-1 clocksource=acpi_pm no_timer_check nokaslr ' +
  'mitigations=off systemd.show_status=0 audit=0';

export type Outcome = { readonly status: number; readonly output: string };

export class Machine {
  readonly folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-system-'));
  readonly #waiting = new Map<number, (outcome: Outcome) => void>();
  #qemu: ChildProcess | null = null;
  #agent: Socket | null = null;
  #numbers = 0;
  #received = '';
  #hello: () => void = () => {};

  /** iscsi-nbd is installed in it; with the folder `packages` that is in its /packages instead. */
  constructor(packages?: string) {
    const args = packages === undefined ? [this.folder] : [this.folder, packages];
    execFileSync(join(PROJECT, 'scripts/vm/system'), args, { stdio: 'inherit' });
  }

  get consolePath(): string {
    return join(this.folder, 'console.log');
  }

  /** Resolves when systemd takes commands, which is long before it has started everything. */
  async boot(): Promise<void> {
    const agentPath = join(this.folder, 'agent.sock');
    const log = openSync(join(this.folder, 'qemu.log'), 'a');
    // pdeathsig: should the test be killed, the machine goes as well.
    const qemu = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...this.#options(agentPath)],
      { stdio: ['ignore', log, log] },
    );
    closeSync(log);
    this.#qemu = qemu;
    const ended = once(qemu, 'exit').then(() => this.#fail('ended before it took commands'));
    const up = new Promise<void>((resolve) => {
      this.#hello = resolve;
    });
    await this.#connect(agentPath);
    await Promise.race([up, ended]);
    ended.catch(() => undefined);
  }

  #options(agentPath: string): string[] {
    const path = (name: string) => join(this.folder, name);
    // TCG everywhere, as in scripts/vm/run. cache=unsafe: the guest reboots, not the host.
    return `-name iscsi-nbd-systemd -accel tcg,thread=multi -cpu max -smp 2 -m 1024
      -nodefaults -no-user-config -no-reboot -display none
      -kernel ${path('vmlinux')} -initrd ${path('initrd')}
      -drive file=${path('disk.ext4')},format=raw,if=virtio,cache=unsafe
      -netdev user,id=net -device virtio-net-pci,netdev=net,romfile=
      -serial file:${this.consolePath}
      -chardev socket,id=agent,path=${agentPath},server=on,wait=off
      -device virtio-serial-pci,max_ports=2 -device virtserialport,chardev=agent,nr=1`
      .trim()
      .split(/\s+/)
      .concat('-append', KERNEL_LINE);
  }

  async #connect(path: string): Promise<void> {
    for (;;) {
      const socket = connect(path);
      const isOpen = await new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      });
      if (isOpen) {
        socket.on('error', () => undefined).on('data', (bytes) => this.#take(String(bytes)));
        this.#agent = socket;
        return;
      }
      // QEMU has not made its socket yet.
      if (this.#qemu?.exitCode !== null) throw this.#fail('did not start');
      await sleep(20);
    }
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
    this.#agent?.write(`${number} ${Buffer.from(commands).toString('base64')}\n`);
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
    const qemu = this.#qemu;
    if (qemu === null) return;
    const off = once(qemu, 'exit');
    this.try('systemctl --no-block reboot').catch(() => undefined);
    await off;
    this.#qemu = null;
  }

  #fail(what: string): Error {
    const read = (name: string) => {
      try {
        return readFileSync(join(this.folder, name), 'utf8').slice(-4000);
      } catch {
        return '';
      }
    };
    return new Error(`The machine ${what}.\n${read('qemu.log')}\n${read('console.log')}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#qemu?.kill('SIGKILL')) await once(this.#qemu, 'exit').catch(() => undefined);
    this.#agent?.destroy();
    if (!process.env['KEEP']) rmSync(this.folder, { recursive: true, force: true });
  }
}
