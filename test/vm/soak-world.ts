/**
 * What the soak runs on: a tgt with three targets (write cache on), a daemon that is killed again and
 * again and has a disk under fio, a daemon that stays and has an ext4 and a disk that grows, and the
 * packet filter between them and the target.
 */
import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { descriptorsOf, run, shell, sizeOf, until } from './attached.js';
import { startFileLoad } from './measured-load.js';
import { MIB } from './targets.js';
import { Wire } from './wire.js';

const TARGETS = ['killed', 'stays', 'visited'].map((name) => `iqn.2024-01.com.example:${name}`);
const [KILLED = '', STAYS = '', VISITED = ''] = TARGETS;
const READY_MS_MAX = 60_000;
const GROWN_MIB = 2;

/** One reading of a process; bytes. */
export type Memory = {
  readonly rss: number;
  /** Of ArrayBuffers: the slabs, and little else. */
  readonly slabs: number;
  readonly heap: number;
  readonly descriptors: number;
};

export class SoakWorld {
  readonly tgt: Tgt;
  readonly wire: Wire;
  readonly killed = new DaemonProcess({ devices: true, retained: '/run/iscsi-nbd/retained' });
  readonly stays = new DaemonProcess({ devices: true, retained: '/run/iscsi-nbd/retained' });
  /** Rejects if one of the loads fails. */
  failed: Promise<unknown> = Promise.resolve();
  readonly #folder: string;
  readonly #growing: string;
  #devices = { verified: '', files: '', growing: '' };
  #endLoads: () => Promise<void> = async () => undefined;

  static async make(folder: string): Promise<SoakWorld> {
    const growing = join(folder, 'growing');
    await run('truncate', '-s', `${GROWN_MIB}M`, growing);
    const tgt = await startTgt({
      iqn: KILLED,
      luns: [{ sizeBytes: 16 * MIB }],
      targets: [
        { iqn: STAYS, luns: [{ sizeBytes: 64 * MIB }, { file: growing }] },
        { iqn: VISITED, luns: [{ sizeBytes: 4 * MIB }] },
      ],
    });
    const wire = await Wire.to(`127.0.0.1:${tgt.port}`);
    return new SoakWorld(folder, growing, tgt, wire);
  }

  private constructor(folder: string, growing: string, tgt: Tgt, wire: Wire) {
    this.#folder = folder;
    this.#growing = growing;
    this.tgt = tgt;
    this.wire = wire;
  }

  /** Logs both daemons in and starts the loads. */
  async begin(seed: number): Promise<void> {
    process.env['SOAK_MEMORY'] = join(this.#folder, 'memory');
    process.env['NODE_OPTIONS'] = `--import ${resolve('test/vm/soak-memory.program.mjs')}`;
    mkdirSync(process.env['SOAK_MEMORY']);
    await Promise.all([this.killed.start(), this.stays.start()]);
    await this.must(this.killed, 'login', this.wire.portal, KILLED, '--persistent');
    await this.must(this.stays, 'login', this.wire.portal, STAYS, '--persistent');
    const [verified = ''] = await devicesOf(this.killed);
    const [files = '', growing = ''] = await devicesOf(this.stays);
    this.#devices = { verified, files, growing };
    await this.#startLoads(seed);
  }

  async #startLoads(seed: number): Promise<void> {
    const mount = join(this.#folder, 'mnt');
    mkdirSync(mount);
    await shell(`mkfs.ext4 -q ${this.#devices.files}; mount ${this.#devices.files} ${mount}`);
    const files = startFileLoad(this.#folder, mount);
    const verified = shell(`
      round=0
      until test -e ${this.#folder}/enough; do
        fio --name=verified --filename=${this.#devices.verified} --size=8m --rw=randwrite \\
          --bsrange=4k-64k --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --thread \\
          --verify_fatal=1 --verify_state_save=0 --randseed=$((${seed} + round)) \\
          --rate=1m,512k --output=${this.#folder}/verified
        round=$((round + 1))
      done
      echo $round`);
    this.failed = Promise.all([files.failed, verified]).then(() => undefined);
    this.failed.catch(() => undefined);
    this.#endLoads = async () => {
      await files.end();
      console.log(`fio wrote and verified its disk ${(await verified).trim()} times`);
      await shell(`${files.verify}; umount ${mount}; e2fsck -fn ${this.#devices.files}`);
    };
  }

  /** The command has to succeed. */
  async must(daemon: DaemonProcess, ...words: readonly string[]): Promise<void> {
    const { code, err } = await daemon.run(...words);
    if (code !== 0) throw new Error(`${words.join(' ')}: status ${code}: ${err}`);
  }

  /** One login to a third target and its logout, with `between` between them. */
  async visit(between: () => Promise<void>): Promise<void> {
    await this.must(this.stays, 'login', this.wire.portal, VISITED);
    await between();
    await this.must(this.stays, 'logout', VISITED);
  }

  startKilled(): Promise<void> {
    return this.killed.start('--wait-for', `${KILLED}/1`);
  }

  /** Grows a disk by a MiB, while the target is away, and uses what has been added. */
  async grow(): Promise<void> {
    const before = await sizeOf(this.#devices.growing);
    const after = before + MIB;
    await this.tgt.kill();
    await run('truncate', '-s', String(after), this.#growing);
    await this.tgt.restart();
    const hasGrown = async () => (await sizeOf(this.#devices.growing)) === after;
    await until(hasGrown, READY_MS_MAX, () => `${this.#devices.growing} of ${after} bytes`);
    await shell(`
      head -c ${MIB} /dev/urandom >${this.#folder}/added
      dd if=${this.#folder}/added of=${this.#devices.growing} bs=1M seek=${before / MIB} \\
        oflag=direct conv=fsync status=none
      dd if=${this.#devices.growing} bs=1M skip=${before / MIB} count=1 iflag=direct status=none |
        cmp - ${this.#folder}/added`);
  }

  /** Resolves when all disks read. */
  async untilWell(): Promise<void> {
    const read = (device: string) =>
      run(
        'timeout',
        '90',
        'dd',
        `if=${device}`,
        'of=/dev/null',
        'bs=4k',
        'count=1',
        'iflag=direct',
      );
    await Promise.all(Object.values(this.#devices).map(read));
  }

  async memory(daemon: DaemonProcess): Promise<Memory> {
    const text = await readFile(join(this.#folder, 'memory', String(daemon.pid)), 'utf8');
    const { rss, arrayBuffers, heapUsed } = JSON.parse(text) as NodeJS.MemoryUsage;
    const descriptors = (await descriptorsOf(daemon.pid)).filter((link) => link !== '/dev/null');
    return { rss, slabs: arrayBuffers, heap: heapUsed, descriptors: descriptors.length };
  }

  /** Ends the loads, which verify, then the sessions and processes in order. */
  async end(): Promise<void> {
    await this.#endLoads();
    await this.must(this.killed, 'logout', KILLED);
    await this.must(this.stays, 'logout', STAYS);
    for (const daemon of [this.killed, this.stays]) {
      const status = await daemon.stop();
      if (status !== 0) throw new Error(`a daemon ended with status ${status}: ${daemon.log}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    delete process.env['NODE_OPTIONS'];
    await this.wire.mend();
    for (const daemon of [this.killed, this.stays]) await daemon[Symbol.asyncDispose]();
    await this.tgt.stop();
  }
}

async function devicesOf(daemon: DaemonProcess): Promise<string[]> {
  const { sessions } = await daemon.json<{ sessions: SessionView[] }>('sessions');
  return sessions.flatMap(({ devices }) => devices.map(({ device }) => device ?? ''));
}
