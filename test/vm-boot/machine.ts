/** A virtual machine that is started from a LUN, and a shell in it over a serial port. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** An emulated processor on a busy machine takes minutes for what takes seconds on a real one. */
export const WAIT_MS_MAX = 600_000;
const POLL_MS = 100;

export type MachineOptions = {
  /** Of scripts/vm/boot-image: vmlinux and initrd. */
  readonly images: string;
  /** For the sockets and logs of this machine. */
  readonly folder: string;
  /** After what every machine of the tests has. */
  readonly commandLine: string;
  readonly qemu?: readonly string[];
};

export class Machine implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #console: string;
  readonly #shellPath: string;
  readonly ended: Promise<number | null>;
  #socket: Socket | null = null;
  #said = '';

  constructor(options: MachineOptions) {
    const { images, folder, commandLine, qemu = [] } = options;
    this.#console = join(folder, 'console.log');
    this.#shellPath = join(folder, 'shell.sock');
    // Clearing a page that holds translated code is slow in an emulator: the more so the more
    // often it was translated (programs at random addresses), the smaller the stores are (`rep
    // stosb`), and the more threads it has. The clock is one that a busy host cannot make run fast.
    const machine =
      '-accel tcg -cpu max,-erms,-fsrm -smp 1 -m 1536 -nodefaults -no-user-config -no-reboot ' +
      '-display none -netdev user,id=net -device virtio-net-pci,netdev=net,romfile=';
    const kernel =
      'console=ttyS0 loglevel=7 printk.devkmsg=on panic=-1 clocksource=acpi_pm no_timer_check ' +
      'nokaslr norandmaps mitigations=off systemd.show_status=no';
    const files = ['-kernel', join(images, 'vmlinux'), '-initrd', join(images, 'initrd')];
    const serial = `unix:${this.#shellPath},server=on,wait=off`;
    this.#child = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...machine.split(' '), ...files],
        ...['-append', `${kernel} ${commandLine}`],
        ...['-serial', `file:${this.#console}`, '-serial', serial, ...qemu],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    this.ended = new Promise((resolve) => this.#child.once('exit', (code) => resolve(code)));
  }

  get console(): string {
    return existsSync(this.#console) ? readFileSync(this.#console, 'utf8') : '';
  }

  /** Resolves with what the console has said, when that matches. */
  async consoleSays(pattern: RegExp): Promise<RegExpExecArray> {
    for (let waitedMs = 0; waitedMs < WAIT_MS_MAX; waitedMs += POLL_MS) {
      const found = pattern.exec(this.console);
      if (found !== null) return found;
      if (this.#child.exitCode !== null) break;
      await sleep(POLL_MS);
    }
    throw new Error(`the console never said ${pattern}:\n${this.console.slice(-6000)}`);
  }

  /** Resolves when there is a shell to `run` in. */
  async ready(): Promise<void> {
    while (!existsSync(this.#shellPath)) await sleep(POLL_MS);
    this.#socket = connect(this.#shellPath);
    this.#socket.setEncoding('utf8');
    this.#socket.on('error', () => undefined);
    this.#socket.on('data', (text: string) => {
      this.#said += text;
    });
    await this.#ended('the shell');
  }

  /** Runs a command in the machine's shell; resolves with what it says, rejects when it fails. */
  async run(command: string): Promise<string> {
    this.start(command);
    return this.#ended(command);
  }

  /** Starts a command whose end is not reported, as that of the machine. */
  start(command: string): void {
    this.#socket?.write(`${command}\n`);
  }

  async #ended(command: string): Promise<string> {
    const end = /\[\[status (\d+)\]\]\n/;
    for (let waitedMs = 0; waitedMs < WAIT_MS_MAX; waitedMs += POLL_MS) {
      const found = end.exec(this.#said);
      if (found !== null) {
        const said = this.#said.slice(0, found.index);
        this.#said = this.#said.slice(found.index + found[0].length);
        if (found[1] !== '0') throw new Error(`${command}: status ${found[1]}: ${said}`);
        return said;
      }
      if (this.#child.exitCode !== null) break;
      await sleep(POLL_MS);
    }
    throw new Error(`${command}: no end; ${this.#said}\n${this.console.slice(-6000)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.destroy();
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}
