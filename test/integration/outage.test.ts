import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { errorsIn, fioVerify } from '../helpers/fio.js';
import { nbdsh, run, ServedDisk } from '../helpers/served-disk.js';
import { startTgt } from '../helpers/tgt.js';

const MIB = 1 << 20;
/** `OUTAGE_KILLS=20` is the long version. */
const KILLS = Number(process.env['OUTAGE_KILLS'] ?? 2);
const DOWN_MS = 7000;

/** tgt as it is by default: WCE=1, and 29h at every login. */
describe.concurrent('an outage over real sockets', () => {
  test('a target killed in the middle of writes and back after 7 s is a pause, not an error', {
    timeout: 60_000 + KILLS * 30_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using served = await ServedDisk.start(tgt.url());
    const fio = fioVerify(served.uri, 5 + KILLS * 20);
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sleep(2000 + Math.random() * 3000);
      const heard = served.events.length;
      await tgt.kill();
      await served.heard((event) => event.to === 'reconnecting', heard);
      await sleep(DOWN_MS);
      await tgt.restart();
      await served.heard((event) => event.event === 'deviceReleased', heard);
    }
    expect(errorsIn(await fio)).toEqual(['0']);
    expect(served.sessionIds.size).toBe(1);
    expect(served.events.filter((event) => event.event === 'deviceHeld').length).toBe(KILLS);
    expect(served.events.some((event) => event.event === 'deviceRemoved')).toBe(false);
  });

  const isRoot = process.getuid?.() === 0;
  test.skipIf(!isRoot && process.env['CI'] === undefined)(
    'a path that drops everything for 12 s is a pause, not an error (needs root for netns)',
    { timeout: 120_000 },
    async () => {
      await using path = new NetworkPath();
      await using tgt = await startTgt({
        luns: [{ sizeBytes: 64 * MIB }],
        address: path.targetAddress,
        launcher: path.launcher,
      });
      await using served = await ServedDisk.start(tgt.url());
      const fio = fioVerify(served.uri, 30);
      await sleep(4000);
      path.swallow(true);
      await served.heard((event) => event.to === 'reconnecting');
      await sleep(2500);
      path.swallow(false);
      expect(errorsIn(await fio)).toEqual(['0']);
      expect(served.sessionIds.size).toBe(1);
      expect(served.events.some((event) => event.event === 'deviceReleased')).toBe(true);
    },
  );

  test('a target away for longer than the removal latency fails requests then, and comes back', {
    timeout: 60_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using served = await ServedDisk.start(tgt.url(), '--removal-latency', '3');
    const told = nbdsh(served.uri, [
      'import time',
      'try:',
      '    while True:',
      '        h.pwrite(b"x" * 4096, 0)',
      '        time.sleep(0.01)',
      'except nbd.Error as error:',
      '    print("error", error.errno, "at", time.time())',
    ]);
    await sleep(1500);
    await tgt.kill();
    const [, errno, atSeconds] = /error (\w+) at ([\d.]+)/.exec(await told) ?? [];
    const lost = await served.heard((event) => event.to === 'reconnecting');
    const awayMs = Number(atSeconds) * 1000 - Date.parse(lost.time);
    expect(errno).toBe('EIO');
    expect(awayMs).toBeGreaterThan(2990);
    expect(awayMs).toBeLessThan(6000);
    await served.heard((event) => event.to === 'removed');
    await served.heard((event) => event.event === 'deviceRemoved');
    expect(existsSync(served.socket)).toBe(false);
    await tgt.restart();
    await served.heard((event) => event.event === 'deviceAttached');
    await nbdsh(served.uri, ['h.pwrite(b"y" * 4096, 0)', 'assert h.pread(512, 0) == b"y" * 512']);
    expect(served.sessionIds.size).toBe(1);
  });

  test('the memory of four clients that write during an outage is held within 300 MB', {
    timeout: 120_000,
  }, async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 256 * MIB }] });
    await using served = await ServedDisk.start(tgt.url());
    const args = ['--name=hammer', '--ioengine=nbd', `--uri=${served.uri}`, '--rw=write'];
    args.push('--bs=256k', '--iodepth=256', '--numjobs=4', '--size=64M', '--offset_increment=64M');
    args.push('--time_based', '--runtime=12', '--rate=50m', '--group_reporting');
    const fio = run('fio', args, { cwd: tmpdir() });
    await sleep(3000);
    await tgt.kill();
    await served.heard((event) => event.to === 'reconnecting');
    await sleep(5000);
    await tgt.restart();
    expect(errorsIn(await fio)).toEqual(['0']);
    // The bound is that of the oldest Node; each newer one has more pages of its own.
    const ofNode = Number(process.versions.node.split('.')[0]) > 20 ? 32 : 0;
    expect(served.peakMemoryBytes).toBeLessThan((300 + ofNode) * MIB);
    console.log(`peak memory: ${Math.round(served.peakMemoryBytes / MIB)} MiB`);
  });

  test.each([
    ['no flush fails after a restart, by default', 'auto', '0'],
    ['without retained writes the flush after a restart fails', 'never', 'EIO'],
  ] as const)(
    '%s, though a volatile cache may have lost writes',
    {
      timeout: 60_000,
    },
    async (_what, retainWrites, first) => {
      await using tgt = await startTgt({ luns: [{ sizeBytes: 16 * MIB }] });
      await using served = await ServedDisk.start(tgt.url(), '--retain-writes', retainWrites);
      const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-flush-'));
      const [written, back] = [join(folder, 'written'), join(folder, 'back')];
      const shell = nbdsh(served.uri, [
        'import os, time',
        'h.pwrite(b"a" * 4096, 0)',
        'h.flush()',
        'h.pwrite(b"b" * 4096, 0)',
        `open("${written}", "w").close()`,
        `while not os.path.exists("${back}"): time.sleep(0.02)`,
        'for _ in range(2):',
        '    try:',
        '        h.flush()',
        '        print("flush 0")',
        '    except nbd.Error as error:',
        '        print("flush", error.errno)',
      ]);
      while (!existsSync(written)) await sleep(20);
      const before = served.events.length;
      await tgt.restart();
      await served.heard((event) => event.event === 'deviceReleased', before);
      await writeFile(back, '');
      expect([...(await shell).matchAll(/flush (\w+)/g)].map((match) => match[1])).toEqual([
        first,
        '0',
      ]);
      const replays = served.events.filter(({ event }) => event === 'writesReplayed').length;
      expect(replays).toBe(retainWrites === 'auto' ? 1 : 0);
      await rm(folder, { recursive: true });
    },
  );
});

/** A namespace of its own for the target, and a cable to it that can be made to swallow. */
class NetworkPath {
  readonly targetAddress: string;
  readonly launcher: readonly string[];
  readonly #name = `in${process.pid}`;
  readonly #device = `inbd${process.pid}`;

  constructor() {
    const subnet = `198.18.${process.pid & 0xff}`;
    this.targetAddress = `${subnet}.2`;
    this.launcher = ['ip', 'netns', 'exec', this.#name];
    const there = `${this.#device}t`;
    this.#ip('netns', 'add', this.#name);
    this.#ip('link', 'add', this.#device, 'type', 'veth', 'peer', 'name', there);
    this.#ip('link', 'set', there, 'netns', this.#name);
    this.#ip('addr', 'add', `${subnet}.1/30`, 'dev', this.#device);
    this.#ip('link', 'set', this.#device, 'up');
    const inside = ['-n', this.#name] as const;
    this.#ip(...inside, 'addr', 'add', `${this.targetAddress}/30`, 'dev', there);
    this.#ip(...inside, 'link', 'set', there, 'up');
    this.#ip(...inside, 'link', 'set', 'lo', 'up');
  }

  /** Packets to the target go to a station that does not exist; no error is reported. */
  swallow(on: boolean): void {
    const neighbour = ['dev', this.#device] as const;
    if (on) {
      const nobody = ['lladdr', '02:00:00:00:00:99', 'nud', 'permanent'] as const;
      this.#ip('neigh', 'replace', this.targetAddress, ...nobody, ...neighbour);
    } else {
      this.#ip('neigh', 'del', this.targetAddress, ...neighbour);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ip('link', 'del', this.#device);
    this.#ip('netns', 'del', this.#name);
  }

  #ip(...args: readonly string[]): void {
    const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
    execFileSync('ip', args, { env: { ...process.env, PATH: path } });
  }
}
