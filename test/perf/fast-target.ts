import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from '../helpers/tgt.js';

const run = promisify(execFile);
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** The C target of `scripts/bench` as a process: a RAM disk of 64 MiB, which is each of its LUNs. */
export class FastTarget {
  readonly port: number;
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(port: number, child: ChildProcess) {
    this.port = port;
    this.url = `iscsi://127.0.0.1:${port}/iqn.2024-01.com.example:fast/1`;
    this.#child = child;
  }

  /** Compiles the target into `folder` and starts it, with LUNs from 0 on; WCE=1 with `cache`. */
  static async start(folder: string, luns = 2, ...cache: readonly 'cache'[]): Promise<FastTarget> {
    await run(join(PROJECT, 'scripts/fast-target/compile'), [folder]);
    const port = await freePort();
    const argv = ['--pdeathsig', 'KILL', join(folder, 'fast-target'), String(port), '64'];
    argv.push(String(luns), ...cache);
    const child = spawn('setpriv', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve, reject) => {
      child.stdout?.once('data', resolve);
      child.once('exit', () => reject(new Error('fast-target ended')));
    });
    return new FastTarget(port, child);
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }
}
