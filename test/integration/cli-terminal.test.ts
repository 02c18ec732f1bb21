/** What a person sees and types: `top` and tables in a terminal, completion in a shell. */
import { execFile } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judge, Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { CLI, DaemonProcess } from './daemon-process.js';

const exec = promisify(execFile);
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 240_000;
const MIB = 1 << 20;
const TARGETS = [
  'iqn.2024-01.com.example:storage.rack-7.shelf-3.disk-0042',
  'iqn.2024-01.com.example:b',
];

/** A terminal of its own (tmux) that runs one command; what stands on its screen. */
class Terminal implements AsyncDisposable {
  readonly #socket: string;

  private constructor(socket: string) {
    this.#socket = socket;
  }

  static async open(daemon: DaemonProcess, columns: number, command: string): Promise<Terminal> {
    const terminal = new Terminal(join(daemon.folder, `tmux-${columns}`));
    const node = `"${process.execPath}" "${CLI}"`;
    await terminal.#tmux(
      ...['-f', '/dev/null', 'new-session', '-d', '-x', `${columns}`, '-y', '24'],
      `ISCSI_NBD_CONTROL="${daemon.control}" ${node} ${command}; echo "[status $?]"; exec cat`,
    );
    return terminal;
  }

  /** The screen's lines, without what is blank at their ends. */
  async lines(): Promise<string[]> {
    const { stdout } = await this.#tmux('capture-pane', '-p');
    return stdout.trimEnd().split('\n');
  }

  type(...keys: string[]): Promise<unknown> {
    return this.#tmux('send-keys', ...keys);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmux('kill-server').catch(() => undefined);
  }

  #tmux(...args: string[]): Promise<{ stdout: string }> {
    const env = { ...process.env, LC_ALL: 'C.UTF-8', TERM: 'xterm' };
    return exec('tmux', ['-S', this.#socket, ...args], { env });
  }
}

describe('commands in a terminal', { timeout: SLOW }, () => {
  let tgt: Tgt;
  let daemon: DaemonProcess;

  beforeAll(async () => {
    const [first = '', ...others] = TARGETS;
    const luns = [{ sizeBytes: 8 * MIB }];
    tgt = await startTgt({ iqn: first, luns, targets: others.map((iqn) => ({ iqn, luns })) });
    daemon = new DaemonProcess();
    await daemon.start();
    for (const target of TARGETS) {
      await daemon.json('login', `127.0.0.1:${tgt.port}`, target, '--removal-latency', '600');
    }
  }, SLOW);
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await tgt.stop();
  });

  it.each([
    [80, /^ *SESSION +STATE +IN\/s +OUT\/s +IOPS +P99 +QD +HELD +TARGET$/],
    [200, /^ *SESSION +STATE +IN\/s +OUT\/s +IOPS +P50 +P99 +QD +HELD +UNFLUSHED +TARGET$/],
  ])(
    'top in %i columns has a row for each session and leaves the screen as it was',
    async (...row) => {
      const [columns, headings] = row;
      await using terminal = await Terminal.open(daemon, columns, 'top --interval 0.2');
      let lines: string[] = [];
      await daemon.until(async () => {
        lines = await terminal.lines();
        return (
          lines.length >= 3 && headings.test(lines.find((line) => /^ *SESSION/.test(line)) ?? '')
        );
      });
      const rows = lines.filter((line) => line.includes('loggedIn'));
      expect(rows).toHaveLength(TARGETS.length);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
      // The end of a name tells more than its beginning.
      for (const name of TARGETS) {
        const shown = columns === 200 ? name : name.slice(-6);
        expect(
          rows.some((line) => line.endsWith(shown)),
          shown,
        ).toBe(true);
      }
      await terminal.type('C-c');
      await daemon.until(async () => (await terminal.lines()).some((line) => /status/.test(line)));
      expect(await terminal.lines()).toEqual(['[status 0]']);
    },
  );

  it.each([80, 200])('every table fits in %i columns', async (columns) => {
    await using terminal = await Terminal.open(daemon, columns, 'sessions');
    await daemon.until(async () => (await terminal.lines()).some((line) => /status/.test(line)));
    const lines = await terminal.lines();
    expect(lines).toHaveLength(TARGETS.length + 2);
    expect(lines[0]).toMatch(/^SESSION +STATE +TYPE +PORTAL +LUNS +TARGET$/);
  });

  it('top counts down to the removal of the devices of a session in an outage', async () => {
    await tgt.kill('SIGSTOP');
    await tgt.kill();
    await using terminal = await Terminal.open(daemon, 80, 'top --interval 0.2');
    const countdown = async () => {
      const row = (await terminal.lines()).find((line) => /removed in \d+ s/.test(line));
      return Number(/removed in (\d+) s/.exec(row ?? '')?.[1] ?? Number.NaN);
    };
    await daemon.until(async () => (await countdown()) > 0);
    const first = await countdown();
    expect(first).toBeLessThanOrEqual(600);
    await daemon.until(async () => (await countdown()) < first);
  });
});

describe('completion', { timeout: SLOW }, () => {
  let place: Workplace;

  beforeAll(async () => {
    place = await Workplace.make();
    writeFileSync(place.file('iscsi-nbd'), `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`);
    chmodSync(place.file('iscsi-nbd'), 0o755);
  });
  afterAll(() => place[Symbol.asyncDispose]());

  /** What is typed, and what is offered for the last word of it. */
  const WORDS: readonly (readonly [typed: readonly string[], offered: readonly string[]])[] = [
    [['imp'], ['import-open-iscsi']],
    [['persistent', 'l'], ['list']],
    [['serve', '--removal'], ['--removal-latency']],
    [['daemon', '--log-level', 'tr'], ['trace']],
  ];

  it('completion in bash offers commands, flags and choices', async () => {
    const rounds = WORDS.map(([typed]) => {
      const words = ['iscsi-nbd', ...typed].map((word) => `'${word}'`).join(' ');
      return `COMP_WORDS=(${words}); COMP_CWORD=${typed.length}; COMPREPLY=()
        "$function" iscsi-nbd; printf '%s ' "\${COMPREPLY[@]}"; echo`;
    });
    const script = `PATH="${place.path}:$PATH"
      source <(SHELL=/bin/bash iscsi-nbd completion)
      function=$(complete -p iscsi-nbd | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
      ${rounds.join('\n')}`;
    const out = await judge('bash', '--norc', '-euc', script);
    expect(
      out
        .trimEnd()
        .split('\n')
        .map((line) => line.trim().split(' ')),
    ).toEqual(WORDS.map(([, offered]) => offered));
  });

  it('completion in zsh offers them with their descriptions', async () => {
    const rounds = WORDS.map(([typed]) => {
      const words = ['iscsi-nbd', ...typed].map((word) => `'${word}'`).join(' ');
      return `words=(${words}); CURRENT=${typed.length + 1}; BUFFER="$words"; CURSOR=$#BUFFER; $function; print`;
    });
    const script = `path=("${place.path}" $path); export SHELL=/bin/zsh ZSH_NAME=zsh
      compdef() { function=$1 }
      _describe() { print -rn -- "\${(j: | :)reply}" }
      _default() { }
      source <(iscsi-nbd completion)
      ${rounds.join('\n')}`;
    const lines = (await judge('zsh', '-fc', script)).trimEnd().split('\n');
    for (const [index, [typed, offered]] of WORDS.entries()) {
      for (const word of offered) expect(lines[index], typed.join(' ')).toContain(word);
    }
    expect(lines[0]).toMatch(/import-open-iscsi:keep open-iscsi's node records/);
  });
});
