/** `csi` and `docker-plugin` as processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLI, type DaemonProcess } from '../integration/daemon-process.js';

/** On a file system in memory, as retained writes have to be. */
export const RETAINED = '/run/iscsi-nbd/retained';

/** A front end of volumes as a process of its own, with what it prints. */
export class FrontEnd {
  readonly #daemon: DaemonProcess;
  readonly #args: readonly string[];
  #child: ChildProcess | null = null;
  #out = '';

  constructor(daemon: DaemonProcess, ...args: readonly string[]) {
    this.#daemon = daemon;
    this.#args = args;
  }

  async start(): Promise<void> {
    const { control, folder } = this.#daemon;
    const places = ['--control', control, '--state-directory', join(folder, 'volumes')];
    const args = [CLI, ...this.#args, ...places, '--run-directory', join(folder, 'run')];
    this.#out = '';
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.on('data', (text) => {
      this.#out += text;
    });
    this.#child = child;
    await this.#daemon.until(() => this.#out.includes('ready'));
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await ended;
    }
    this.#child = null;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

/** What is mounted below a folder. */
export function mountsBelow(folder: string): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.filter((line) => line.includes(folder));
}
