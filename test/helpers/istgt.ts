/**
 * A real iSCSI target (Debian's `istgt`) for a test. Each one has its own process, port, control
 * port and temporary folder. Its configuration is that of the package's example file
 * (`/usr/share/doc/istgt/examples/istgt.conf`) with other paths, ports and sizes; a test names
 * its other differences.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort, type TgtChap } from './tgt.js';

/** Keys of a section of istgt.conf; they take the place of the example's. */
export type IstgtKeys = Readonly<Record<string, string | number>>;

export type IstgtOptions = {
  /** Sizes of the files behind LUN 0, 1, … in MiB; default: one of 64. */
  readonly lunsMiB?: readonly number[];
  /** Of `[LogicalUnit1]`, e.g. `{ UseDigest: 'Header Data', QueueDepth: 0 }`. */
  readonly unit?: IstgtKeys;
  /** Of `[Global]`, e.g. `{ DiscoveryAuthMethod: 'CHAP' }`. */
  readonly global?: IstgtKeys;
  /** `PortalGroup1` has two. */
  readonly hasOtherPortal?: boolean;
  /** The account of `AuthGroup1`, which `[LogicalUnit1]` names; `AuthMethod` stays as it is. */
  readonly chap?: TgtChap;
};

export interface Istgt {
  readonly port: number;
  readonly iqn: string;
  /** Process id of the istgt that runs now. */
  readonly pid: number;
  readonly logPath: string;
  /** `address:port`. */
  readonly portal: string;
  /** With `hasOtherPortal`; else the same. */
  readonly otherPortal: string;
  /** `iscsi://address:port/iqn/lun`. */
  url(lun?: number): string;
  /** The file behind a LUN. */
  file(lun?: number): string;
  /** Sends a signal and waits for the end of the process; SIGTERM takes istgt up to 2 s. */
  kill(signal?: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Starts a process with the same port and files; the one before must have ended. */
  start(): Promise<void>;
  /** Ends the process and removes the temporary folder. */
  [Symbol.asyncDispose](): Promise<void>;
}

const NODE_BASE = 'iqn.2007-09.jp.ne.peach.istgt';
const ADDRESS = '127.0.0.1';
const START_MS_MAX = 30_000;
const PORT_TRIES_MAX = 5;

/** `[Global]` of the example, but for its paths. */
const GLOBAL: IstgtKeys = {
  NodeBase: `"${NODE_BASE}"`,
  LogFacility: '"local7"',
  Timeout: 30,
  NopInInterval: 20,
  DiscoveryAuthMethod: 'Auto',
  MaxSessions: 16,
  MaxConnections: 4,
  MaxR2T: 32,
  MaxOutstandingR2T: 16,
  DefaultTime2Wait: 2,
  DefaultTime2Retain: 60,
  FirstBurstLength: 262_144,
  MaxBurstLength: 1_048_576,
  MaxRecvDataSegmentLength: 262_144,
  InitialR2T: 'Yes',
  ImmediateData: 'Yes',
  DataPDUInOrder: 'Yes',
  DataSequenceInOrder: 'Yes',
  ErrorRecoveryLevel: 0,
};

/** `[LogicalUnit1]` of the example, but for its storage. */
const UNIT: IstgtKeys = {
  TargetName: 'disk1',
  TargetAlias: '"Data Disk1"',
  Mapping: 'PortalGroup1 InitiatorGroup1',
  AuthMethod: 'Auto',
  AuthGroup: 'AuthGroup1',
  UseDigest: 'Auto',
  UnitType: 'Disk',
};

export async function startIstgt(options: IstgtOptions = {}): Promise<Istgt> {
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-istgt-'));
  try {
    for (let tries = 1; ; tries += 1) {
      const portal = await freePort();
      const other = options.hasOtherPortal === true ? await freePort() : portal;
      const ports = { portal, other, control: await freePort() };
      await writeFile(join(folder, 'istgt.conf'), configurationOf(folder, ports, options));
      await writeFile(join(folder, 'auth.conf'), accountsOf(options.chap), { mode: 0o600 });
      const istgt = new IstgtProcess(folder, ports);
      try {
        await istgt.start();
        return istgt;
      } catch (error) {
        // Another process may have taken the port since it was found free.
        const portIsTaken = error instanceof Error && /listen error/.test(error.message);
        if (!portIsTaken || tries === PORT_TRIES_MAX) throw error;
      }
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

type IstgtPorts = { readonly portal: number; readonly other: number; readonly control: number };

class IstgtProcess implements Istgt {
  readonly port: number;
  readonly otherPortal: string;
  readonly iqn = `${NODE_BASE}:disk1`;
  readonly logPath: string;
  readonly #folder: string;
  readonly #pidFile: string;
  #process: ChildProcess | null = null;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(folder: string, ports: IstgtPorts) {
    this.#folder = folder;
    this.#pidFile = pidFileOf(folder);
    this.port = ports.portal;
    this.otherPortal = `${ADDRESS}:${ports.other}`;
    this.logPath = join(folder, 'istgt.log');
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error('istgt is not running');
    return pid;
  }

  get portal(): string {
    return `${ADDRESS}:${this.port}`;
  }

  url(lun = 0): string {
    return `iscsi://${this.portal}/${this.iqn}/${lun}`;
  }

  file(lun = 0): string {
    return fileOf(this.#folder, lun);
  }

  async start(): Promise<void> {
    await rm(this.#pidFile, { force: true });
    const log = openSync(this.logPath, 'w');
    // pdeathsig: a test process that dies takes its target along.
    const istgt = ['istgt', '-D', '-c', join(this.#folder, 'istgt.conf')];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...istgt], {
      stdio: ['ignore', log, log],
      env: { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
    });
    closeSync(log);
    this.#process = child;
    this.#ended = Promise.race([once(child, 'exit'), once(child, 'error')]).catch(() => undefined);
    void this.#ended.then(() => {
      if (this.#process === child) this.#process = null;
    });
    try {
      await this.#waitUntilReady();
    } catch (error) {
      await this.kill('SIGKILL');
      throw new Error(`istgt did not start; its log:\n${readFileSync(this.logPath, 'utf8')}`, {
        cause: error,
      });
    }
  }

  async kill(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    this.#process?.kill(signal);
    await this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** istgt writes its process id after it has opened its ports. */
  async #waitUntilReady(): Promise<void> {
    const deadlineMs = performance.now() + START_MS_MAX;
    for (;;) {
      const written = await readFile(this.#pidFile, 'utf8').catch(() => '');
      if (Number(written) === this.#process?.pid) return;
      if (this.#process === null) throw new Error('istgt ended (is the package installed?)');
      if (performance.now() > deadlineMs) throw new Error(`not ready after ${START_MS_MAX} ms`);
      await sleep(20);
    }
  }
}

function pidFileOf(folder: string): string {
  return join(folder, 'istgt.pid');
}

function fileOf(folder: string, lun: number): string {
  return join(folder, `lun${lun}.img`);
}

function configurationOf(folder: string, ports: IstgtPorts, options: IstgtOptions): string {
  const luns = (options.lunsMiB ?? [64]).map((mib, lun) => [
    `LUN${lun}`,
    `Storage ${fileOf(folder, lun)} ${mib}MB`,
  ]);
  const global: IstgtKeys = {
    PidFile: pidFileOf(folder),
    AuthFile: join(folder, 'auth.conf'),
    MediaDirectory: folder,
    ...GLOBAL,
    ...options.global,
  };
  const control: IstgtKeys = {
    AuthMethod: 'CHAP Mutual',
    AuthGroup: 'AuthGroup10000',
    Portal: `UC1 ${ADDRESS}:${ports.control}`,
    Netmask: ADDRESS,
  };
  return [
    section('Global', global),
    section('UnitControl', control),
    section('PortalGroup1', {
      'Portal DA1': `${ADDRESS}:${ports.portal}`,
      ...(ports.other === ports.portal ? {} : { 'Portal DA2': `${ADDRESS}:${ports.other}` }),
    }),
    section('InitiatorGroup1', { InitiatorName: '"ALL"', Netmask: ADDRESS }),
    section('LogicalUnit1', { ...UNIT, ...options.unit, ...Object.fromEntries(luns) }),
  ].join('');
}

function section(name: string, keys: IstgtKeys): string {
  const lines = Object.entries(keys).map(([key, value]) => `  ${key} ${value}\n`);
  return `[${name}]\n${lines.join('')}`;
}

/** auth.conf, which istgt reads anew at each login. */
function accountsOf(chap: TgtChap | undefined): string {
  if (chap === undefined) return '';
  const names = [chap.user, chap.password];
  if (chap.targetUser !== undefined && chap.targetPassword !== undefined) {
    names.push(chap.targetUser, chap.targetPassword);
  }
  return `[AuthGroup1]\n  Auth ${names.map((name) => `"${name}"`).join(' ')}\n`;
}
