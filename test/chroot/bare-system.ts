import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import type { Workplace } from '../helpers/command-process.js';
import { CLONE, output } from '../packaging/packages.js';

const run = promisify(execFile);

/** Its files are those of the cached folder, and what is written is in memory. */
const SET_UP = `
  set -e
  mount -t tmpfs -o size=2g tmpfs "$2"
  mkdir "$2/upper" "$2/work" "$2/root"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
  mount -t proc proc "$2/root/proc"
  for node in null zero random urandom; do
    [ -e "$2/root/dev/$node" ] || : >"$2/root/dev/$node"
    mount --bind "/dev/$node" "$2/root/dev/$node"
  done
  mount -t tmpfs -o mode=755 tmpfs "$2/root/run"
  mkdir "$2/root/packages"
  mount --bind "$3" "$2/root/packages"
  echo ready
  # It is the first process, and a shell that waits takes leave of those that others have left.
  while :; do sleep 3600; done`;

/** A Debian below this system, which ends with all its processes and leaves nothing. */
export class BareSystem {
  readonly #holder: ChildProcess;
  readonly #root: string;

  private constructor(holder: ChildProcess, root: string) {
    this.#holder = holder;
    this.#root = root;
  }

  /** A bare Debian of this suite. */
  static async ofSuite(suite: string, place: Workplace, packages: string): Promise<BareSystem> {
    const files = (await output(`${CLONE}scripts/vm/bare-debian`, [suite])).trim();
    return BareSystem.start(files, place, packages);
  }

  /** `files` is the root of the system, `packages` the folder that it sees as /packages. */
  static async start(files: string, place: Workplace, packages: string): Promise<BareSystem> {
    const folder = place.file(`${basename(files)}.system`);
    await output('mkdir', [folder]);
    const namespaces = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child'];
    const args = [...namespaces, 'sh', '-c', SET_UP, 'sh', files, folder, packages];
    // pdeathsig: a test process that dies takes the system along.
    const holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [text] = await once(holder.stdout, 'data');
    if (String(text) !== 'ready\n') throw new Error(`the system ${files} did not start: ${text}`);
    return new BareSystem(holder, `${folder}/root`);
  }

  /** A path of the system as this one sees it. */
  path(inside: string): string {
    return `/proc/${this.#holder.pid}/root${this.#root}${inside}`;
  }

  /** What a shell script prints, to both outputs; rejects with it if it fails. */
  async run(script: string): Promise<string> {
    const pid = this.#holder.pid;
    const inside = [`--mount=/proc/${pid}/ns/mnt`, `--pid=/proc/${pid}/ns/pid_for_children`];
    const command = ['chroot', this.#root, 'sh', '-ec', `exec 2>&1\n${script}`];
    const env = {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      ...{ HOME: '/root', DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
    };
    try {
      const { stdout } = await run('nsenter', [...inside, ...command], {
        ...{ env, maxBuffer: 64 << 20 },
      });
      return stdout;
    } catch (error) {
      const said = (error as { stdout?: string }).stdout ?? '';
      throw new Error(`${script.trim()}\n${said}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#holder, 'exit');
    this.#holder.kill('SIGKILL');
    await ended;
  }
}
