/** Podman in the VM: its own storage, an image of Debian's busybox, and a volume plugin. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, shell } from './attached.js';

const IMAGE = 'busybox';
const TOOLS = 'cat dd grep head ls mkdir sh sha256sum sync test touch wc';

export class Podman {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Podman with the plugin that listens on `socketPath`; all that it keeps is below `folder`. */
  static async make(folder: string, socketPath: string): Promise<Podman> {
    await mkdir(folder);
    const podman = new Podman(folder);
    await writeFile(
      join(folder, 'containers.conf'),
      `[engine]
       cgroup_manager = "cgroupfs"
       events_logger = "none"
       runtime = "crun"
       tmp_dir = "${folder}/tmp"
       [engine.volume_plugins]
       iscsi-nbd = "${socketPath}"`,
    );
    await writeFile(
      join(folder, 'storage.conf'),
      `[storage]
       driver = "vfs"
       runroot = "${folder}/run"
       graphroot = "${folder}/storage"`,
    );
    // The VM's first process is no systemd, which would have mounted the control groups.
    await shell(`
      mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
      mkdir -p ${folder}/image/bin ${folder}/image/tmp
      cp /bin/busybox ${folder}/image/bin/
      for tool in ${TOOLS}; do ln -s busybox ${folder}/image/bin/$tool; done
      tar -C ${folder}/image -c . -f ${folder}/image.tar`);
    await podman.run('import', join(folder, 'image.tar'), IMAGE);
    return podman;
  }

  /** Resolves with what the command prints, without its last line end. */
  async run(...args: readonly string[]): Promise<string> {
    const conf = (name: string) => join(this.#folder, `${name}.conf`);
    const environment = [
      ...[`CONTAINERS_CONF=${conf('containers')}`, `CONTAINERS_STORAGE_CONF=${conf('storage')}`],
      `TMPDIR=${this.#folder}`,
    ];
    return (await run('env', ...environment, 'podman', ...args)).trimEnd();
  }

  /** Starts a container that has the volume `data` at /data; resolves when its program runs. */
  async start(name: string, script: string): Promise<void> {
    const log = ['--log-driver', 'k8s-file', '--log-opt', `path=${this.#logOf(name)}`];
    await this.run('run', '--detach', '--name', name, ...log, ...this.#container(script));
  }

  /** Runs a container with the volume to its end; resolves with what it has printed. */
  once(script: string): Promise<string> {
    return this.run('run', '--rm', ...this.#container(script));
  }

  #container(script: string): readonly string[] {
    return ['--network', 'none', '--volume', 'data:/data', IMAGE, 'sh', '-euc', script];
  }

  /** The last line that a container has printed; empty if there is none yet. */
  async lastLineOf(name: string): Promise<string> {
    const lines = (await readFile(this.#logOf(name), 'utf8')).trimEnd().split('\n');
    // <time> stdout F <line>
    return lines.at(-1)?.split(' ').slice(3).join(' ') ?? '';
  }

  /** Resolves with the exit status of a container when it has ended. */
  async wait(name: string): Promise<number> {
    return Number(await this.run('wait', name));
  }

  #logOf(name: string): string {
    return join(this.#folder, `${name}.log`);
  }
}
