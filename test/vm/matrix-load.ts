/**
 * What uses a device while a fault happens, and what it saw of it: fio, which verifies what it has
 * written, on one LUN, and files with fsync on the ext4 of another.
 */
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { shell, until } from './attached.js';

export type Seen = {
  /** `ok`, or what fio said; `hangs`. */
  readonly raw: string;
  readonly files: string;
  /** The longest read or write of the raw device, and the longest fsync of a file. */
  readonly rawSeconds: number;
  readonly filesSeconds: number;
};

const END_MS_MAX = 45_000;

export class MatrixLoad {
  readonly #folder: string;
  readonly #mount: string;
  readonly #devices: readonly [string, string];
  #isRawOver = false;
  #areFilesOver = false;

  static async start(folder: string, devices: readonly [string, string]): Promise<MatrixLoad> {
    const load = new MatrixLoad(folder, devices);
    await mkdir(load.#mount, { recursive: true });
    await shell(`mkfs.ext4 -q ${devices[1]}; mount ${devices[1]} ${load.#mount}`);
    load.#startRaw();
    load.#startFiles();
    return load;
  }

  private constructor(folder: string, devices: readonly [string, string]) {
    this.#folder = folder;
    this.#devices = devices;
    this.#mount = join(folder, 'mnt');
  }

  /** Resolves if both loads have got further, or have ended. */
  async untilFurther(): Promise<void> {
    const before = await this.#rounds();
    const isFurther = async () => {
      const now = await this.#rounds();
      const raw = this.#isRawOver || now.raw > before.raw + 1;
      return raw && (this.#areFilesOver || now.files > before.files + 1);
    };
    await until(isFurther, END_MS_MAX, () => `rounds of ${this.#devices}`).catch(() => undefined);
  }

  async end(): Promise<Seen> {
    await shell(`touch ${this.#folder}/enough`);
    const isOver = () => this.#isRawOver && this.#areFilesOver;
    await until(isOver, END_MS_MAX, () => 'the loads').catch(() => undefined);
    const files = this.#areFilesOver ? await this.#filesWords() : 'hangs';
    return {
      raw: this.#isRawOver ? await this.#words('raw') : 'hangs',
      files,
      rawSeconds: await this.#longest('raw'),
      filesSeconds: await this.#longest('files'),
    };
  }

  #startRaw(): void {
    const job = `fio --name=raw --filename=${this.#devices[0]} --size=2m --rw=randwrite --bs=16k \
      --ioengine=libaio --iodepth=4 --direct=1 --thread --rate_iops=60,60 --verify=crc32c \
      --verify_fatal=1 --verify_state_save=0 --output-format=json`;
    const over = () => {
      this.#isRawOver = true;
    };
    this.#repeat('raw', job).then(over, over);
  }

  #startFiles(): void {
    const job = `fio --name=files --directory=${this.#mount} --nrfiles=2 --size=1m --rw=randwrite \
      --bs=4k --ioengine=psync --fsync=8 --rate_iops=,80 --verify=crc32c --verify_fatal=1 \
      --verify_state_save=0 --output-format=json`;
    const over = () => {
      this.#areFilesOver = true;
    };
    this.#repeat('files', job).then(over, over);
  }

  /** Round after round, each with a report of its own, until `enough` or an error. */
  #repeat(kind: 'raw' | 'files', job: string): Promise<string> {
    const at = `${this.#folder}/${kind}`;
    return shell(`mkdir ${at}; cd ${this.#folder}; n=0
      until test -e ${this.#folder}/enough; do
        ${job} --randseed=$n --output=${at}/$n 2>${at}.err ||
          { echo $? >${at}.status; exit 1; }
        n=$((n + 1))
      done`);
  }

  async #rounds(): Promise<{ raw: number; files: number }> {
    const count = (kind: string) =>
      readdir(join(this.#folder, kind)).then(
        (names) => names.length,
        () => 0,
      );
    return { raw: await count('raw'), files: await count('files') };
  }

  /** What fio said of the round that has failed. */
  async #words(kind: 'raw' | 'files'): Promise<string> {
    const failed = await readFile(`${this.#folder}/${kind}.status`, 'utf8').catch(() => null);
    if (failed === null) return 'ok';
    const names = await readdir(join(this.#folder, kind));
    const last = String(Math.max(...names.map(Number)));
    const said =
      (await readFile(`${this.#folder}/${kind}.err`, 'utf8')) +
      (await readFile(join(this.#folder, kind, last), 'utf8'));
    console.log(`${kind} of ${this.#devices}: ${said.slice(0, 1500)}`);
    if (
      /verify: bad|verify failed|verify type mismatch|Invalid or incomplete multibyte/.test(said)
    ) {
      return 'wrong data';
    }
    return /Input\/output error/.test(said)
      ? 'EIO'
      : /Read-only/.test(said)
        ? 'read-only'
        : 'failed';
  }

  /** Then the file system itself. */
  async #filesWords(): Promise<string> {
    const words = await this.#words('files');
    const check = await shell(`timeout 40 umount ${this.#mount}
      timeout 40 e2fsck -fn ${this.#devices[1]} >${this.#folder}/fsck 2>&1`).then(
      () => '',
      () => ', e2fsck finds errors',
    );
    return words + check;
  }

  async #longest(kind: 'raw' | 'files'): Promise<number> {
    let longest = 0;
    for (const name of await readdir(join(this.#folder, kind)).catch(() => [])) {
      const text = await readFile(join(this.#folder, kind, name), 'utf8').catch(() => '');
      // Completion latencies, and those of fsync, are in nanoseconds.
      for (const [, max] of text.matchAll(
        /"(?:clat|lat)_ns" : \{\s+"min" : \d+,\s+"max" : (\d+)/g,
      )) {
        longest = Math.max(longest, Number(max) / 1e9);
      }
    }
    return longest;
  }
}
