/**
 * `iscsi-nbd attach` as a process of its own, and what the kernel shows of its devices. Nothing here
 * calls a synchronous child process, so the same helpers serve devices of this process too.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';

const addon = createRequire(import.meta.url)(resolve('build/Release/iscsi_nbd.node')) as NbdAddon;
/** Packages have `dist/boot/main.mjs`, which is one file for each command and starts sooner. */
const PROGRAM = resolve(process.env['ATTACH_PROGRAM'] ?? 'dist/cli/main.js');
/** An emulated processor starts Node in some five seconds, and much slower on a busy machine. */
const START_MS_MAX = 150_000;
const EVENT_MS_MAX = 120_000;
const POLL_MS = 50;

export type SeenEvent = { readonly event: string } & Readonly<Record<string, unknown>>;

export interface Attached {
  readonly pid: number;
  /** All that was printed on standard output, in order. */
  readonly events: readonly SeenEvent[];
  readonly errors: () => string;
  /** The `ready` events: one for each LUN. */
  readonly ready: readonly SeenEvent[];
  /** Path of the first device. */
  readonly device: string;
  readonly sessionId: string;
  /** Resolves with the first event of this name after `from` events. */
  waitFor(
    name: string,
    more?: Readonly<Record<string, unknown>>,
    from?: number,
  ): Promise<SeenEvent>;
  /** Sends a signal without waiting. */
  signal(signal: NodeJS.Signals): void;
  /** Sends a signal and resolves with the exit status (null: ended by the signal). */
  end(signal: NodeJS.Signals): Promise<number | null>;
  readonly exited: Promise<number | null>;
}

/** Starts `attach` and waits for its ready lines (`count` of them). */
export async function attach(
  url: string,
  flags: readonly string[] = [],
  options: { readonly count?: number; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Attached> {
  const started = startAttach(url, flags, options.env);
  const count = options.count ?? 1;
  await until(
    () => {
      if (started.ended()) throw new Error(`attach ended: ${started.attached.errors()}`);
      return started.attached.ready.length >= count;
    },
    START_MS_MAX,
    () => `ready lines of ${url}`,
  );
  return started.attached;
}

/** Starts `attach` without waiting for anything. */
export function startAttach(
  url: string,
  flags: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): { readonly attached: Attached; readonly ended: () => boolean } {
  const child = spawn(process.execPath, [PROGRAM, 'attach', url, '--json', ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  running.add(child);
  const events: SeenEvent[] = [];
  let stderr = '';
  let isOver = false;
  collectLines(child, (line) => events.push(JSON.parse(line) as SeenEvent));
  child.stderr?.on('data', (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  const exited = new Promise<number | null>((done) => {
    child.once('close', (status) => {
      isOver = true;
      running.delete(child);
      done(status);
    });
  });
  const attached: Attached = {
    pid: child.pid ?? -1,
    events,
    exited,
    errors: () => stderr + events.map((event) => JSON.stringify(event)).join('\n'),
    get ready() {
      return events.filter((event) => event.event === 'ready');
    },
    get device() {
      return String(events.find((event) => event.event === 'ready')?.['device']);
    },
    get sessionId() {
      return String(events.find((event) => event.event === 'ready')?.['sessionId']);
    },
    waitFor: async (name, more = {}, from = 0) => {
      const find = () =>
        events.slice(from).find((event) => event.event === name && holds(event, more));
      await until(
        () => find() !== undefined,
        EVENT_MS_MAX,
        () => {
          const seen = events.map((event) => JSON.stringify(event)).join('\n');
          return `${name} ${JSON.stringify(more)}; seen:\n${seen}\n${stderr}`;
        },
      );
      return find() as SeenEvent;
    },
    signal: (signal) => child.kill(signal),
    end: (signal) => {
      child.kill(signal);
      return exited;
    },
  };
  return { attached, ended: () => isOver };
}

const running = new Set<ChildProcess>();

/** After a test that failed half-way: nothing of it is left to disturb the next. */
export async function cleanUp(): Promise<void> {
  for (const child of running) child.kill('SIGKILL');
  await until(
    () => running.size === 0,
    10_000,
    () => 'killed processes to end',
  );
  // Before the mounts: what they still want to write would wait for a process for ten minutes.
  for (const index of await configuredDevices()) {
    await addon.nbdDisconnect(index).catch(() => undefined);
  }
  const mounts = await readFile('/proc/self/mounts', 'utf8');
  for (const line of mounts.split('\n')) {
    const [source, where] = line.split(' ');
    if (source?.startsWith('/dev/nbd') && where) await run('umount', '-l', where);
  }
}

/** Removes a device, as `nbd-client -d` does. */
export async function disconnect(device: string): Promise<void> {
  await addon.nbdDisconnect(Number(device.slice('/dev/nbd'.length)));
}

/** Indexes of the devices the kernel has configured. */
export async function configuredDevices(): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/sys/block')) {
    const index = /^nbd(\d+)$/.exec(name)?.[1];
    if (index !== undefined && (await attributeOf(`/dev/${name}`, 'pid')) !== null) {
      found.push(Number(index));
    }
  }
  return found.sort((left, right) => left - right);
}

/** An attribute under /sys/block/nbdX; null where it is not there. */
export async function attributeOf(device: string, name: string): Promise<string | null> {
  const path = `/sys/block/${device.replace('/dev/', '')}/${name}`;
  return readFile(path, 'utf8').then(
    (text) => text.trim(),
    () => null,
  );
}

/** Bytes the kernel says the device has; 0 when it is not connected. */
export async function sizeOf(device: string): Promise<number> {
  return Number((await attributeOf(device, 'size')) ?? 0) * 512;
}

/** Runs a program; resolves with its standard output, rejects with what it said. */
export function run(program: string, ...args: readonly string[]): Promise<string> {
  return new Promise((done, reject) => {
    execFile(program, [...args], { maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      if (error) {
        const said = `${stdout}${stderr}`.slice(-4000);
        reject(new Error(`${program} ${args.join(' ')}: ${said}`, { cause: error }));
      } else done(stdout);
    });
  });
}

/** Runs a shell script that stops at the first failure. */
export function shell(script: string): Promise<string> {
  return run('bash', '-euo', 'pipefail', '-c', script);
}

/** Waits for a condition, not for a time. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  msMax: number,
  what: () => string,
): Promise<void> {
  const deadlineMs = performance.now() + msMax;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`waited ${msMax} ms for ${what()}`);
    await sleep(POLL_MS);
  }
}

/** Descriptors a process has, by what they point at. */
export async function descriptorsOf(pid: number): Promise<string[]> {
  const names = await readdir(`/proc/${pid}/fd`);
  const links = await Promise.all(
    names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')),
  );
  return links.filter((link) => link !== '').sort();
}

/** Tasks in uninterruptible sleep, with the function the kernel has them in. */
export async function stuckTasks(): Promise<string[]> {
  const stuck: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    if (stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'D') continue;
    const where = await readFile(`/proc/${pid}/stack`, 'utf8').catch(() => '');
    stuck.push(`${stat.slice(0, stat.lastIndexOf(')') + 1)} ${where.split('\n')[0]}`);
  }
  return stuck;
}

function holds(event: SeenEvent, more: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(more).every(([key, value]) => event[key] === value);
}

function collectLines(child: ChildProcess, take: (line: string) => void): void {
  let rest = '';
  child.stdout?.on('data', (bytes: Buffer) => {
    const lines = (rest + bytes.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line);
  });
}
