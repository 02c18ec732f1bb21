/** Kernel devices of a daemon with workers: what a file system on one sees of the end of a worker. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell, until } from './attached.js';

vi.setConfig({ testTimeout: 240_000, hookTimeout: 120_000 });
const CRASH = fileURLToPath(new URL('../helpers/worker-crash.mjs', import.meta.url));
const MIB = 1 << 20;
const STEP_MS_MAX = 60_000;
/** How long the files of the other worker may pause: it takes 0.3 s, and the take-over three. */
const MOMENT_MS = 2000;
const COMPLAINTS = 'I/O error|EXT4-fs (error|warning)|Abort|blocked for more than';
const TAKEN_OVER = 'taken over by the next thread';

let tgts: readonly [Tgt, Tgt];
let daemon: DaemonProcess;
let crashes = '';

beforeEach(async () => {
  const luns = [{ sizeBytes: 32 * MIB }];
  const one = await startTgt({ luns });
  tgts = [one, await startTgt({ iqn: 'iqn.2001-04.com.example:other', luns })];
  daemon = new DaemonProcess({ devices: true, retained: '/run/iscsi-nbd/retained' });
  crashes = join(daemon.folder, 'crash');
  mkdirSync(crashes);
  vi.stubEnv('ISCSI_NBD_CRASH', crashes);
  vi.stubEnv('NODE_OPTIONS', `--import=${CRASH} --max-old-space-size=64`);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await cleanUp();
  await daemon[Symbol.asyncDispose]();
  for (const tgt of tgts) await tgt[Symbol.asyncDispose]();
});

const viewOf = (tgt: Tgt) => daemon.json<SessionView>('session', tgt.iqn);

/** A file system on a disk of its own, in which files are written, each with its digest. */
class WrittenDisk {
  readonly device: string;
  readonly worker: number;
  readonly tgt: Tgt;
  readonly #folder: string;
  readonly #progress: string;
  #failure: unknown = null;
  #written: Promise<void> = Promise.resolve();

  private constructor(tgt: Tgt, { devices, worker }: SessionView) {
    this.tgt = tgt;
    this.device = devices[0]?.device ?? '';
    this.worker = worker ?? -1;
    this.#folder = join(daemon.folder, this.device.replaceAll('/', '-'));
    this.#progress = `${this.#folder}.files`;
  }

  static async mounted(tgt: Tgt): Promise<WrittenDisk> {
    const words = ['login', `127.0.0.1:${tgt.port}`, tgt.iqn, '--reconnect-interval', '1'];
    const { session } = await daemon.json<{ session: SessionView }>(...words);
    const disk = new WrittenDisk(tgt, session);
    const { device } = disk;
    await shell(`
      mkfs.ext4 -q ${device}; mkdir ${disk.#folder}; mount ${device} ${disk.#folder}
      echo 0 >${disk.#progress}
    `);
    return disk;
  }

  /** Files are written in turn, again and again, until `finished`. */
  write(): void {
    const script = `
      cd ${this.#folder}; n=0
      until test -e ${this.#progress}.enough; do
        n=$((n + 1)); f=f$((n % 40))
        dd if=/dev/urandom of=$f bs=64k count=4 conv=fsync status=none
        sha256sum $f >../sum-$$; mv ../sum-$$ sum-$f
        echo $n >${this.#progress}.new; mv ${this.#progress}.new ${this.#progress}
      done
    `;
    this.#written = shell(script).then(
      () => undefined,
      (error: unknown) => {
        this.#failure = error;
      },
    );
  }

  /** How many files have been written so far; throws if writing has failed. */
  files(): number {
    if (this.#failure !== null) throw this.#failure;
    return Number(readFileSync(this.#progress, 'utf8'));
  }

  async finished(): Promise<void> {
    writeFileSync(`${this.#progress}.enough`, '');
    await this.#written;
    if (this.#failure !== null) throw this.#failure;
  }

  /** What is on the disk after a mount of its own is what was written; then it is unmounted. */
  async checked(): Promise<void> {
    await shell(`
      umount ${this.#folder}; e2fsck -fn ${this.device}
      mount -o ro ${this.device} ${this.#folder}; cd ${this.#folder}
      cat sum-f* | sha256sum -c --quiet; cd /; umount ${this.#folder}
    `);
  }
}

/**
 * Waits until `isSo` and until then some more files have been written on both disks; the longest
 * time in which there was no new one on each, in milliseconds.
 */
async function pauses(disks: readonly WrittenDisk[], isSo: () => boolean): Promise<number[]> {
  const seen = disks.map((disk) => ({ disk, files: disk.files(), atMs: performance.now(), ms: 0 }));
  let more = disks.map(() => Number.POSITIVE_INFINITY);
  const isOver = () => {
    for (const one of seen) {
      const [files, nowMs] = [one.disk.files(), performance.now()];
      one.ms = Math.max(one.ms, nowMs - one.atMs);
      if (files > one.files) Object.assign(one, { files, atMs: nowMs });
    }
    if (!isSo()) return false;
    more = more.map((end, at) => Math.min(end, (seen[at]?.files ?? 0) + 4));
    return seen.every(({ files }, at) => files >= (more[at] ?? 0));
  };
  await until(isOver, STEP_MS_MAX, () => `more files; log:\n${daemon.log}`);
  return seen.map(({ ms }) => Math.round(ms));
}

describe('a daemon with two workers and kernel devices', () => {
  it('file systems notice nothing of the end of a worker, in two ways, nor of kill -9 of the daemon', async () => {
    await shell('dmesg --clear');
    await daemon.start('--workers', '2');
    const disks = [await WrittenDisk.mounted(tgts[0]), await WrittenDisk.mounted(tgts[1])] as const;
    expect(disks.map(({ worker }) => worker).sort()).toEqual([0, 1]);
    for (const disk of disks) disk.write();
    await pauses(disks, () => true);
    for (const [at, way] of ['throw', 'heap'].entries()) {
      const [dying, other] = at === 0 ? disks : ([disks[1], disks[0]] as const);
      const { logins, outages } = await viewOf(other.tgt);
      writeFileSync(join(crashes, String(dying.worker)), way);
      const isTakenOver = () => daemon.log.split(TAKEN_OVER).length - 1 === at + 1;
      const [ofDying, ofOther] = await pauses([dying, other], isTakenOver);
      console.log(`${way}: files paused ${ofDying} ms, those of the other worker ${ofOther} ms`);
      expect(ofOther).toBeLessThan(Math.min(MOMENT_MS, ofDying ?? 0));
      expect(await viewOf(other.tgt)).toMatchObject({ logins, outages });
    }
    await daemon.stop('SIGKILL');
    await daemon.start('--workers', '2', ...tgts.flatMap(({ iqn }) => ['--wait-for', `${iqn}/1`]));
    await pauses(disks, () => true);
    for (const disk of disks) {
      await disk.finished();
      expect((await viewOf(disk.tgt)).devices.map(({ device }) => device)).toEqual([disk.device]);
      await disk.checked();
    }
    expect(await shell(`dmesg | grep -E '${COMPLAINTS}' || true`)).toBe('');
    expect((await daemon.run('logout', '--all')).code).toBe(0);
    expect(await configuredDevices()).toEqual([]);
  });
});
