import type {
  BootMachineFacts,
  BootTestHooks,
  BootTestOptions,
  BootVerdict,
  LunExport,
  OpenSession,
  ProductEvent,
  TargetUrl,
} from '../config/contract.js';
import { formatTargetUrl } from '../config/target-url.js';
import { eventLevel } from '../daemon/event-log.js';
import type { CliIo } from './context.js';
import { eventText, readyEvent } from './event-text.js';
import { humanBytes, printable, printLine, warn } from './print.js';

const REDRAW_MS = 1000;
const COLUMNS_DEFAULT = 80;
/** What may wait for a reader of the console. */
const UNREAD_BYTES_MAX = 1 << 20;
/** To the beginning of the line, and erase it (ECMA-48: CR, EL). */
const CLEAR_LINE = '\r\x1b[K';

type Subject = {
  readonly url: TargetUrl;
  readonly options: BootTestOptions;
  readonly json: boolean;
  readonly console: boolean;
};

/**
 * Tells how a boot goes: on a terminal a line that shows the time and what the console said last,
 * with `--console` all it says. The verdict alone goes to standard output, or every event with
 * `--json`.
 */
export class BootReport {
  readonly #io: CliIo;
  readonly #subject: Subject;
  readonly #isLive: boolean;
  #sessionId: string | undefined;
  /** What is booted, as it was when it was ready. */
  #entry: LunExport | undefined;
  #startedAtMs = 0;
  #lastLine = '';
  #linesLost = 0;
  #redraw: NodeJS.Timeout | null = null;

  constructor(io: CliIo, subject: Subject) {
    this.#io = io;
    this.#subject = subject;
    this.#isLive = io.stderr.isTTY === true && !subject.json && !subject.console;
  }

  hooks(signal: AbortSignal): BootTestHooks {
    return {
      signal,
      onEvent: (event) => this.#event(event),
      onReady: (stack) => this.#ready(stack),
      onStarted: (machine) => this.#started(machine),
      onConsole: (lines, unfinished) => this.#console(lines, unfinished),
      onWarning: (message) => this.#warning(message),
    };
  }

  verdict(verdict: BootVerdict, exitCode: number): void {
    this.#clear();
    if (this.#linesLost > 0) {
      this.#warning(`${this.#linesLost} lines of the console are omitted: the output was not read`);
    }
    const { options, json, console } = this.#subject;
    if (json) {
      const { elapsedMs, ...facts } = verdict;
      const elapsedSeconds = elapsedMs / 1000;
      const { screenshotPath: screenshot, keepOverlayPath: overlay } = options;
      this.#json('verdict', { ...facts, elapsedSeconds, exitCode, screenshot, overlay });
      return;
    }
    if (!verdict.passed && !console && verdict.lastLines.length > 0) {
      this.#say('the console said last:');
      for (const line of verdict.lastLines) this.#say(`  ${printable(line)}`);
    }
    if (options.keepOverlayPath !== undefined) {
      this.#say(`what the system wrote is in ${options.keepOverlayPath}`);
    }
    printLine(this.#io, verdictText(this.#name(), verdict, options));
  }

  [Symbol.dispose](): void {
    this.#clear();
  }

  #ready(stack: OpenSession): void {
    const [entry] = stack.exports;
    this.#sessionId = stack.sessionId;
    this.#entry = entry;
    if (entry === undefined || !this.#subject.json) return;
    printLine(this.#io, JSON.stringify(readyEvent(stack, entry, new Date())));
  }

  #started(machine: BootMachineFacts): void {
    this.#startedAtMs = performance.now();
    const { firmware, memoryMiB, cpus, write } = this.#subject.options;
    if (this.#subject.json) {
      this.#json('bootStarted', { ...machine, firmware, memoryMiB, cpus, write });
      return;
    }
    for (const line of this.#startText(machine)) this.#say(line);
    if (!this.#isLive) return;
    this.#redraw = setInterval(() => this.#draw(), REDRAW_MS);
    this.#draw();
  }

  #startText(machine: BootMachineFacts): string[] {
    const { firmware, memoryMiB, cpus, write, keepOverlayPath } = this.#subject.options;
    const how = machine.accelerator === 'kvm' ? 'with KVM' : 'emulated, without KVM';
    const size = humanBytes(this.#entry?.sizeBytes ?? 0);
    const count = `${cpus} CPU${cpus === 1 ? '' : 's'}`;
    const parts = `${firmware.toUpperCase()}, ${count}, ${memoryMiB} MiB`;
    const kept = keepOverlayPath === undefined ? 'thrown away' : 'kept';
    const writes = write ? 'what it writes stays on the LUN' : `what it writes is ${kept}`;
    return [
      `booting ${this.#name()} (${size})`,
      `  in QEMU ${machine.qemuVersion} (${how}, ${parts}); ${writes}`,
    ];
  }

  #console(lines: readonly string[], unfinished: string): void {
    const { json, console } = this.#subject;
    this.#lastLine = unfinished.trim() === '' ? (lines.at(-1) ?? this.#lastLine) : unfinished;
    if (console) {
      for (const line of lines) {
        if (this.#isBehind()) this.#linesLost += 1;
        else if (json) this.#json('console', { line });
        else this.#say(printable(line));
      }
    }
    if (this.#redraw !== null) this.#draw();
  }

  /** The reader is slower than the console, which may talk without end. */
  #isBehind(): boolean {
    const output = this.#subject.json ? this.#io.stdout : this.#io.stderr;
    const waiting: unknown = 'writableLength' in output ? output.writableLength : 0;
    return typeof waiting === 'number' && waiting > UNREAD_BYTES_MAX;
  }

  #event(event: ProductEvent): void {
    if (this.#subject.json) {
      // The first object is `ready`.
      if (this.#entry !== undefined) printLine(this.#io, JSON.stringify(event));
    } else if (eventLevel(event) !== 'info' || event.event === 'deviceReleased') {
      this.#say(eventText(event));
    }
  }

  #warning(message: string): void {
    this.#clear();
    if (this.#subject.json) {
      const time = new Date().toISOString();
      const event = { event: 'warning', time, sessionId: this.#sessionId, message };
      printLine(this.#io, JSON.stringify(event));
      return;
    }
    warn(this.#io, printable(message));
  }

  #json(event: string, facts: Readonly<Record<string, unknown>>): void {
    const time = new Date().toISOString();
    const place = { sessionId: this.#sessionId, lun: this.#entry?.lun };
    printLine(this.#io, JSON.stringify({ event, time, ...place, ...facts }));
  }

  /** A line that stays, above the one that moves. */
  #say(line: string): void {
    this.#io.stderr.write(`${this.#redraw === null ? '' : CLEAR_LINE}${line}\n`);
    if (this.#redraw !== null) this.#draw();
  }

  #draw(): void {
    const seconds = Math.floor((performance.now() - this.#startedAtMs) / 1000);
    const columns: unknown = 'columns' in this.#io.stderr ? this.#io.stderr.columns : undefined;
    const width = typeof columns === 'number' && columns > 0 ? columns : COLUMNS_DEFAULT;
    // One column is left free: a terminal wraps when the last one is written.
    const line = `${String(seconds).padStart(4)} s  ${printable(this.#lastLine)}`;
    this.#io.stderr.write(`${CLEAR_LINE}${[...line].slice(0, width - 1).join('')}`);
  }

  #clear(): void {
    if (this.#redraw === null) return;
    clearInterval(this.#redraw);
    this.#redraw = null;
    this.#io.stderr.write(CLEAR_LINE);
  }

  #name(): string {
    const { user, password, ...bare } = this.#subject.url;
    return printable(formatTargetUrl({ ...bare, lun: this.#entry?.lun ?? bare.lun }));
  }
}

/** The one line to remember. */
function verdictText(name: string, verdict: BootVerdict, options: BootTestOptions): string {
  const { expect, timeoutSeconds } = options;
  const after = `after ${(verdict.elapsedMs / 1000).toFixed(1)} s`;
  const line = `"${printable(verdict.line ?? '').trim()}"`;
  const wanted = `/${printable(expect.source)}/`;
  switch (verdict.reason) {
    case 'expected':
      return `passed: ${name} said ${line} ${after}`;
    case 'failPattern':
      return `failed: ${name} said ${line} ${after}, and not yet ${wanted}`;
    case 'panicked':
      return `failed: the kernel of ${name} panicked ${after}, before it said ${wanted}`;
    case 'shutdown':
      return `failed: ${name} switched itself off ${after}, before it said ${wanted}`;
    case 'resets':
      return `failed: ${name} started ${verdict.resets} times anew ${after}, without ${wanted}`;
    case 'qemuEnded':
      return `failed: QEMU ended ${after}${verdict.line === undefined ? '' : `: ${line}`}`;
    case 'timeout':
      return `timed out: ${name} did not say ${wanted} within ${timeoutSeconds} s${hint(verdict)}`;
  }
}

function hint({ lastLines }: BootVerdict): string {
  const last = lastLines.at(-1);
  if (last !== undefined) return `; last it said "${printable(last).trim()}"`;
  return '; it said nothing at all (is console=ttyS0 on the command line of its kernel?)';
}
