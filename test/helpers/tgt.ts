/**
 * A real iSCSI target (Debian's `tgt`) for a test. Each one has its own process, port, control
 * socket and temporary folder, so that many run side by side, on a host and in the VM.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export type TgtLun = {
  /** Backing file; made sparse when it does not exist. Default: one in the temporary folder. */
  readonly file?: string;
  /** Size of the backing file in bytes; needed unless `file` exists. */
  readonly sizeBytes?: number;
  /** Logical block length in bytes; tgt's own default is 512. */
  readonly blockSize?: number;
  readonly readOnly?: boolean;
  /** Further `tgtadm --params`, e.g. `{ thin_provisioning: 1, scsi_sn: 'abc' }`. */
  readonly params?: Readonly<Record<string, string | number>>;
};

export type TgtChap = {
  readonly user: string;
  readonly password: string;
  /** What the target proves itself with, for mutual CHAP. */
  readonly targetUser?: string;
  readonly targetPassword?: string;
};

export type TgtTarget = {
  readonly iqn?: string;
  /** LUN 1, 2, … in this order; LUN 0 is tgt's own controller. */
  readonly luns: readonly TgtLun[];
  readonly chap?: TgtChap;
  /** RFC 7143 keys as `tgtadm --mode target --op update` takes them, e.g. `InitialR2T: 'No'`. */
  readonly keys?: Readonly<Record<string, string | number>>;
};

export type TgtOptions = TgtTarget & {
  /** More targets beside the one described by the other options. */
  readonly targets?: readonly TgtTarget[];
  /** TCP port on `address`; default: a free one. */
  readonly port?: number;
  /** Default: 127.0.0.1. */
  readonly address?: string;
  /** Command that runs tgtd, e.g. `['ip', 'netns', 'exec', 'there']`. */
  readonly launcher?: readonly string[];
};

export interface Tgt {
  readonly port: number;
  /** Name of the first target. */
  readonly iqn: string;
  /** Process id of the tgtd that runs now. */
  readonly pid: number;
  readonly logPath: string;
  /** `iscsi://address:port/iqn/lun` of the first target. */
  url(lun?: number): string;
  /** Runs `tgtadm` on this tgtd and returns what it prints; rejects when it fails. */
  adm(...args: readonly string[]): Promise<string>;
  /** Sends a signal; with SIGKILL (the default) also waits for the end of the process. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Kills the process if it runs and starts one with the same port, targets and files. */
  restart(): Promise<void>;
  /** Ends the process and removes the temporary folder. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const START_MS_MAX = 30_000;
const STOP_MS_MAX = 5_000;
const PORT_TRIES_MAX = 5;
/** Below the range that Linux gives to outgoing connections, which could take it in a restart. */
const PORT_FIRST = 12_000;
const PORT_COUNT = 20_000;

export async function startTgt(options: TgtOptions): Promise<Tgt> {
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-tgt-'));
  const targets = [options, ...(options.targets ?? [])];
  try {
    for (let tries = 1; ; tries += 1) {
      const port = options.port ?? (await freePort());
      const { address = '127.0.0.1', launcher = [] } = options;
      const tgt = new TgtProcess({ folder, port, targets, address, launcher });
      try {
        await tgt.start();
        return tgt;
      } catch (error) {
        // Another process may have taken the port since it was found free.
        const portIsTaken = error instanceof Error && /unable to bind/.test(error.message);
        if (!portIsTaken || options.port !== undefined || tries === PORT_TRIES_MAX) throw error;
      }
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

class TgtProcess implements Tgt {
  readonly port: number;
  readonly iqn: string;
  readonly logPath: string;
  readonly #folder: string;
  readonly #targets: readonly TgtTarget[];
  readonly #address: string;
  readonly #launcher: readonly string[];
  #process: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: {
    readonly folder: string;
    readonly port: number;
    readonly targets: readonly TgtTarget[];
    readonly address: string;
    readonly launcher: readonly string[];
  }) {
    this.#folder = options.folder;
    this.#targets = options.targets;
    this.#address = options.address;
    this.#launcher = options.launcher;
    this.port = options.port;
    this.iqn = iqnOf(options.targets, 0);
    this.logPath = join(options.folder, 'tgtd.log');
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error('tgtd is not running');
    return pid;
  }

  url(lun = 1): string {
    return `iscsi://${this.#address}:${this.port}/${this.iqn}/${lun}`;
  }

  async start(): Promise<void> {
    const log = openSync(this.logPath, 'a');
    // pdeathsig: a test process that dies takes its target along.
    const tgtd = ['tgtd', '-f', '--iscsi', `portal=${this.#address}:${this.port}`];
    // `ip netns exec` becomes tgtd itself, so that a signal to the process reaches it.
    const [command, ...args] = [...this.#launcher, 'setpriv', '--pdeathsig', 'KILL', ...tgtd];
    const child = spawn(command ?? '', args, {
      stdio: ['ignore', log, log],
      env: this.#environment(),
    });
    closeSync(log);
    this.#process = child;
    this.#ended = new Promise((resolve) => {
      const ended = (): void => {
        if (this.#process === child) this.#process = null;
        resolve();
      };
      child.once('exit', ended);
      child.once('error', ended);
    });
    try {
      await this.#waitUntilReady();
      for (const [index, target] of this.#targets.entries()) await this.#configure(index, target);
    } catch (error) {
      const log = readFileSync(this.logPath, 'utf8').slice(-2000);
      await this.kill();
      throw new Error(`tgtd did not start; its log:\n${log}`, { cause: error });
    }
  }

  adm(...args: readonly string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const options = { env: this.#environment(), timeout: START_MS_MAX };
      execFile('tgtadm', [...args], options, (error, stdout, stderr) => {
        if (error) reject(new Error(`tgtadm ${args.join(' ')}: ${stderr}`, { cause: error }));
        else resolve(stdout);
      });
    });
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#process?.kill(signal);
    if (signal === 'SIGKILL') await this.#ended;
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  async stop(): Promise<void> {
    if (this.#process) {
      await this.kill('SIGCONT');
      // A tgtd with targets ignores SIGTERM; without them this ends it.
      await this.#deleteEverything().catch(() => this.kill());
      await Promise.race([this.#ended, sleep(STOP_MS_MAX, undefined, { ref: false })]);
      await this.kill();
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #environment(): NodeJS.ProcessEnv {
    const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
    return { ...process.env, PATH: path, TGT_IPC_SOCKET: join(this.#folder, 'socket') };
  }

  async #waitUntilReady(): Promise<void> {
    const deadlineMs = Date.now() + START_MS_MAX;
    for (;;) {
      if (this.#process === null) throw new Error('tgtd ended (is the package tgt installed?)');
      const state = await this.adm('--mode', 'system', '--op', 'show').catch(() => '');
      if (state.includes('State: ready')) return;
      if (Date.now() > deadlineMs) throw new Error(`not ready after ${START_MS_MAX} ms`);
      await sleep(20);
    }
  }

  async #configure(index: number, target: TgtTarget): Promise<void> {
    const tid = String(index + 1);
    const onTarget = ['--lld', 'iscsi', '--mode', 'target', '--tid', tid];
    await this.adm(...onTarget, '--op', 'new', '--targetname', iqnOf(this.#targets, index));
    for (const [key, value] of Object.entries(target.keys ?? {})) {
      await this.adm(...onTarget, '--op', 'update', '--name', key, '--value', String(value));
    }
    for (const [at, lun] of target.luns.entries()) await this.#addLun(tid, at + 1, lun);
    if (target.chap) await this.#addChap(tid, target.chap);
    await this.adm(...onTarget, '--op', 'bind', '--initiator-address', 'ALL');
  }

  async #addLun(tid: string, number: number, lun: TgtLun): Promise<void> {
    const file = lun.file ?? join(this.#folder, `target${tid}-lun${number}.img`);
    if (lun.sizeBytes !== undefined || !existsSync(file)) {
      if (lun.sizeBytes === undefined) throw new Error(`${file} needs sizeBytes`);
      const handle = await open(file, 'a');
      await handle.truncate(lun.sizeBytes);
      await handle.close();
    }
    const unit = ['--lld', 'iscsi', '--mode', 'logicalunit', '--tid', tid, '--lun', `${number}`];
    const blockSize = lun.blockSize === undefined ? [] : ['--blocksize', String(lun.blockSize)];
    await this.adm(...unit, '--op', 'new', '--backing-store', file, ...blockSize);
    const params: Record<string, string | number> = { ...lun.params };
    if (lun.readOnly) params['readonly'] = 1;
    for (const [name, value] of Object.entries(params)) {
      await this.adm(...unit, '--op', 'update', '--params', `${name}=${value}`);
    }
  }

  async #addChap(tid: string, chap: TgtChap): Promise<void> {
    const account = ['--lld', 'iscsi', '--mode', 'account'];
    const bind = async (user: string, password: string, ...more: string[]): Promise<void> => {
      const existing = await this.adm(...account, '--op', 'show');
      if (!existing.split('\n').some((line) => line.trim() === user)) {
        await this.adm(...account, '--op', 'new', '--user', user, '--password', password);
      }
      await this.adm(...account, '--op', 'bind', '--tid', tid, '--user', user, ...more);
    };
    await bind(chap.user, chap.password);
    if (chap.targetUser !== undefined && chap.targetPassword !== undefined) {
      await bind(chap.targetUser, chap.targetPassword, '--outgoing');
    }
  }

  async #deleteEverything(): Promise<void> {
    for (const index of this.#targets.keys()) {
      const tid = String(index + 1);
      await this.adm(
        '--lld',
        'iscsi',
        '--mode',
        'target',
        '--op',
        'delete',
        '--force',
        '--tid',
        tid,
      );
    }
    await this.adm('--mode', 'system', '--op', 'delete');
  }
}

function iqnOf(targets: readonly TgtTarget[], index: number): string {
  return targets[index]?.iqn ?? `iqn.2024-01.com.example:disk${index + 1}`;
}

/** A TCP port of 127.0.0.1 that no process listens on now. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORT_FIRST + Math.floor(Math.random() * PORT_COUNT);
    const isFree = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}
