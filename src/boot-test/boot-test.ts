import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { copyFile, mkdtemp, open, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { codeOf, LinkError, ProductError, UsageError } from '../base/errors.js';
import type {
  BootTestHooks,
  BootTestOptions,
  BootVerdict,
  LunExport,
  OpenSession,
  ProductEvent,
  TargetUrl,
} from '../config/contract.js';
import { formatTargetUrl } from '../config/target-url.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { serve } from '../supervisor/serve.js';
import { qemuArguments } from './boot-test-command.js';
import { BootJudge } from './boot-test-judge.js';
import { BootMachine } from './boot-test-machine.js';
import { type BootPrograms, findPrograms } from './boot-test-programs.js';

const QEMU_IMG_MS_MAX = 60_000;

/**
 * Boots the URL's LUN in a virtual machine and says whether the image comes up. The machine gets
 * the LUN over a socket that no other process can reach; unless `write` is set the session is
 * read-only and what the machine writes goes to an overlay.
 *
 * Rejects where nothing can be said of the image: UsageError 27 without QEMU, the errors of the
 * login, LinkError when the target stays away for longer than the removal latency, and what
 * `hooks.signal` aborts with. However it ends, the machine, the session and the files are gone.
 */
export async function runBootTest(
  url: TargetUrl,
  options: BootTestOptions,
  hooks: BootTestHooks,
): Promise<BootVerdict> {
  const programs = await findPrograms(options);
  const directory = await mkdtemp(join(tmpdir(), 'iscsi-nbd-boot-'));
  const test = new BootTest(url, options, hooks, { programs, directory });
  // A second Ctrl-C ends the process at once.
  const atExit = () => rmSync(directory, { recursive: true, force: true });
  process.once('exit', atExit);
  try {
    return await test.run();
  } finally {
    await test.cleanUp();
    await rm(directory, { recursive: true, force: true });
    process.off('exit', atExit);
  }
}

type Place = { readonly programs: BootPrograms; readonly directory: string };

class BootTest {
  readonly #url: TargetUrl;
  readonly #options: BootTestOptions;
  readonly #hooks: BootTestHooks;
  readonly #place: Place;
  #judge: BootJudge | null = null;
  #stack: OpenSession | null = null;
  #machine: BootMachine | null = null;
  /** The file of `--keep-overlay` while it holds nothing worth keeping. */
  #emptyOverlay: string | null = null;

  constructor(url: TargetUrl, options: BootTestOptions, hooks: BootTestHooks, place: Place) {
    this.#url = url;
    this.#options = options;
    this.#hooks = hooks;
    this.#place = place;
  }

  async run(): Promise<BootVerdict> {
    const { entry, stack } = await this.#connect();
    const overlay = this.#options.write ? null : await this.#makeOverlay(entry);
    const uefiVariables = await this.#copyVariables();
    const judge = new BootJudge(this.#options, this.#hooks);
    this.#judge = judge;
    const stop = () => judge.fail(this.#hooks.signal.reason);
    this.#hooks.signal.addEventListener('abort', stop, { once: true });
    stack.closed.catch((error: unknown) => judge.fail(error));
    try {
      this.#hooks.signal.throwIfAborted();
      const machine = await this.#start(judge, { entry, overlay, uefiVariables });
      const verdict = await judge.verdict;
      await this.#takeScreenshot(machine);
      await this.#end(machine);
      return verdict;
    } finally {
      judge.fail(new ProductError('ERR_OVER', 'the boot test is over'));
      this.#hooks.signal.removeEventListener('abort', stop);
    }
  }

  /** After `run`, however it ended: first the machine, which uses what the session serves. */
  async cleanUp(): Promise<void> {
    await this.#machine?.kill();
    if (this.#emptyOverlay !== null) await rm(this.#emptyOverlay, { force: true });
    await this.#stack?.close().catch(() => this.#stack?.close({ force: true }));
  }

  async #connect(): Promise<{ stack: OpenSession; entry: LunExport }> {
    const { write } = this.#options;
    const socketPath = join(this.#place.directory, 'nbd.sock');
    const options = {
      ...this.#options,
      readOnly: !write,
      sessionType: 'boot',
      socketPath,
    } as const;
    const stack = await serve(this.#url, options, {
      signal: this.#hooks.signal,
      onEvent: (event) => this.#event(event),
    });
    this.#stack = stack;
    const [entry, ...others] = stack.exports;
    if (entry === undefined || others.length > 0) throw severalDisks(stack.exports);
    if (write && entry.readOnly) throw writeProtected(entry.lun);
    const { firmware, disk } = this.#options;
    refuseBlockSize(entry.blockSizeBytes, firmware, disk);
    this.#hooks.onReady(stack);
    return { stack, entry };
  }

  #event(event: ProductEvent): void {
    this.#hooks.onEvent(event);
    if (event.event !== 'deviceRemoved') return;
    const why = `while LUN ${event.lun} was being booted the target went away for good`;
    this.#judge?.fail(
      new LinkError('ENOLINK', `${why}: ${event.reason}; nothing is known of the image`),
    );
  }

  /**
   * An empty qcow2 file over the LUN. It names the LUN by its URL, which is what it needs when it
   * is kept: the socket of this process will be gone. The machine gets the socket instead.
   */
  async #makeOverlay(entry: LunExport): Promise<string> {
    const { keepOverlayPath } = this.#options;
    const path = resolve(keepOverlayPath ?? join(this.#place.directory, 'overlay.qcow2'));
    if (keepOverlayPath !== undefined) {
      await claim(path);
      this.#emptyOverlay = path;
    }
    const { user, password, ...bare } = this.#url;
    const backing = formatTargetUrl({ ...bare, lun: entry.lun });
    const args = ['create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', 'raw', path];
    await this.#qemuImg([...args, String(entry.sizeBytes)]);
    return path;
  }

  async #qemuImg(args: readonly string[]): Promise<void> {
    const { qemuImg = 'qemu-img' } = this.#place.programs;
    const environment = { PATH: '/usr/bin:/bin', LC_ALL: 'C' };
    try {
      await promisify(execFile)(qemuImg, [...args], { env: environment, timeout: QEMU_IMG_MS_MAX });
    } catch (cause) {
      const words = (cause as { stderr?: string }).stderr?.trim() ?? (cause as Error).message;
      throw new ProductError('ERR_QEMU', `The overlay cannot be made: ${words}`, { cause });
    }
  }

  async #copyVariables(): Promise<string | null> {
    const { uefi } = this.#place.programs;
    if (uefi === undefined) return null;
    const path = join(this.#place.directory, 'variables.fd');
    await copyFile(uefi.variables, path);
    return path;
  }

  async #start(
    judge: BootJudge,
    disk: { entry: LunExport; overlay: string | null; uefiVariables: string | null },
  ): Promise<BootMachine> {
    const { programs, directory } = this.#place;
    const parts = {
      programs,
      nbdSocket: join(directory, 'nbd.sock'),
      blockSizeBytes: disk.entry.blockSizeBytes,
      overlay: disk.overlay,
      uefiVariables: disk.uefiVariables,
    };
    const { setpriv, qemu } = programs;
    const command = { setpriv, qemu, args: qemuArguments(parts, this.#options) };
    const machine = await BootMachine.start(command, {
      onConsole: (chunk) => judge.consoleSaid(chunk),
      onEvent: (event) => {
        judge.machineTold(event);
        if (event.event === 'STOP') void this.#askWhyStopped(judge);
      },
    });
    this.#machine = machine;
    this.#emptyOverlay = null;
    // QEMU has them open; should this process be killed, what they hold goes with QEMU.
    const isKept = this.#options.keepOverlayPath !== undefined;
    if (disk.overlay !== null && !isKept) await unlink(disk.overlay);
    if (disk.uefiVariables !== null) await unlink(disk.uefiVariables);
    void machine.ended.then((words) => judge.machineEnded(words));
    const { accelerator, version } = machine;
    this.#hooks.onStarted({ accelerator, qemuVersion: version });
    return machine;
  }

  async #askWhyStopped(judge: BootJudge): Promise<void> {
    const status = await this.#machine?.status().catch(() => '');
    if (status !== 'internal-error') return;
    const { accelerator } = this.#machine ?? {};
    const next = accelerator === 'kvm' ? ': try --accel tcg' : '';
    judge.fail(
      new ProductError('ERR_QEMU', `QEMU cannot go on with this machine (${status})${next}`),
    );
  }

  async #takeScreenshot(machine: BootMachine): Promise<void> {
    const { screenshotPath } = this.#options;
    if (screenshotPath === undefined) return;
    const taken = join(this.#place.directory, 'screenshot');
    try {
      await machine.screenshot(taken, screenshotPath.endsWith('.ppm') ? 'ppm' : 'png');
      // Nothing that is there is overwritten, and no link followed.
      const picture = await readFile(taken);
      await writeFile(resolve(screenshotPath), picture, { flag: 'wx', mode: 0o600 });
    } catch (error) {
      this.#hooks.onWarning(`no screenshot in ${screenshotPath}: ${(error as Error).message}`);
    }
  }

  /** What is kept has to be written; the rest is thrown away with the machine. */
  async #end(machine: BootMachine): Promise<void> {
    const { write, keepOverlayPath } = this.#options;
    if (!write && keepOverlayPath === undefined) return;
    if (await machine.quit()) return;
    const what = write ? 'the LUN' : keepOverlayPath;
    this.#hooks.onWarning(`QEMU did not end in time; the last writes may be missing in ${what}`);
  }
}

/** Makes the file, so that nothing that is there is ever overwritten. */
async function claim(path: string): Promise<void> {
  try {
    await (await open(path, 'wx', 0o600)).close();
  } catch (cause) {
    const code = codeOf(cause);
    if (code === 'EEXIST') {
      throw new UsageError(`--keep-overlay: ${path} exists already; name a new file.`, { cause });
    }
    throw new UsageError(`--keep-overlay: ${path} cannot be made (${code}).`, {
      cause,
      exitCode: EXIT_CODES.notPermitted.code,
    });
  }
}

function severalDisks(exports: readonly LunExport[]): UsageError {
  const luns = exports.map(({ lun }) => lun).join(', ');
  return new UsageError(
    `The target has ${exports.length} disks (LUN ${luns}), and one is booted: ` +
      "put its number at the end of the URL, after a '/'.",
  );
}

function writeProtected(lun: number): UsageError {
  return new UsageError(
    `--write: LUN ${lun} is write-protected. Without --write it is booted on an overlay.`,
    { exitCode: EXIT_CODES.error.code, code: 'ERR_WRITE_PROTECTED' },
  );
}

/** A partition table counts in blocks, so the machine's disk must have those of the LUN. */
function refuseBlockSize(
  bytes: number,
  firmware: BootTestOptions['firmware'],
  disk: BootTestOptions['disk'],
): void {
  if (bytes === 512) return;
  const why = `The LUN has blocks of ${bytes} bytes`;
  if (firmware === 'bios') {
    throw new UsageError(`${why}, from which no BIOS boots: use --firmware uefi.`);
  }
  if (disk === 'sata')
    throw new UsageError(`${why}, which SATA disks have not: use --disk virtio.`);
}
