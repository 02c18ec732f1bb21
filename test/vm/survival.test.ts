import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import {
  type Attached,
  attach,
  cleanUp,
  configuredDevices,
  run,
  shell,
  sizeOf,
  startAttach,
  stuckTasks,
  until,
} from './attached.js';
import { allLuns, MIB, sessionsOf, sha256 } from './targets.js';

const KILLS = 3;
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'survival-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

/** A process in the background; resolves with what it printed, rejects when it failed. */
function background(program: string, ...args: readonly string[]) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let isRunning = true;
  child.stdout.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  child.stderr.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  const done = new Promise<string>((resolve, reject) => {
    child.once('close', (status) => {
      isRunning = false;
      if (status === 0) resolve(said);
      else reject(new Error(`${program} ended with ${status}: ${said.slice(-4000)}`));
    });
  });
  done.catch(() => undefined);
  return { done, isRunning: () => isRunning };
}

/** Bytes that have been written to the device since it was made. */
async function writtenTo(device: string): Promise<number> {
  const stat = await readFile(`/sys/block/${device.slice('/dev/'.length)}/stat`, 'utf8');
  return Number(stat.trim().split(/\s+/)[6]) * 512;
}

/** Kills the process and starts it again as before: its devices have no process for seconds. */
async function killed(attached: Attached, url: string, count: number): Promise<Attached> {
  await attached.end('SIGKILL');
  return attach(url, [], { count });
}

type FioReport = {
  readonly jobs: readonly {
    readonly error: number;
    readonly write: { readonly total_ios: number; readonly clat_ns: { readonly max: number } };
  }[];
};

describe('devices after the end of the process that serves them', () => {
  it('the devices survive three kill -9 with fio on one and ext4 on the other: no error, nothing lost', async () => {
    const [raw, ext4] = [join(folder, 'raw'), join(folder, 'ext4')];
    await using tgt = await startTgt({
      luns: [
        { file: raw, sizeBytes: 8 * MIB },
        { file: ext4, sizeBytes: 48 * MIB },
      ],
    });
    const url = allLuns(tgt);
    const first = await attach(url, [], { count: 2 });
    const [one, two] = first.ready.map((event) => String(event['device'])) as [string, string];
    const mount = join(folder, 'mnt');
    await mkdir(mount);
    await shell(`mkfs.ext4 -q ${two}; mount ${two} ${mount}`);
    const job = ['--name=verify', '--ioengine=libaio', '--iodepth=8', '--bs=4k'];
    job.push('--rw=randwrite', '--size=8M', '--randseed=7');
    job.push('--verify=crc32c', '--verify_state_save=0');
    const fio = background(
      'fio',
      ...job,
      ...[
        '--direct=1',
        '--rate_iops=,100',
        `--filename=${one}`,
        '--output-format=json',
        '--do_verify=1',
      ],
      `--output=${folder}/fio.json`,
    );
    const files = background(
      'bash',
      '-euc',
      `cd ${mount}; n=0; while ! test -e ${folder}/enough; do n=$((n+1))
       dd if=/dev/urandom of=f$n bs=16k count=$((n % 8 + 1)) conv=fsync status=none
       sha256sum f$n >>${folder}/sums; sleep 0.3; test $n -lt 150; done; echo $n files`,
    );
    let attached = first;
    for (let kills = 0; kills < KILLS; kills += 1) {
      const before = await writtenTo(one);
      await until(
        async () => (await writtenTo(one)) > before + MIB / 4,
        60_000,
        () => 'fio to write',
      );
      expect(fio.isRunning() && files.isRunning()).toBe(true);
      attached = await killed(attached, url, 2);
      expect(attached.sessionId).toBe(first.sessionId);
      expect(attached.ready.map((event) => event['device'])).toEqual([one, two]);
    }
    await fio.done;
    await shell(`touch ${folder}/enough`);
    const wrote = await files.done;
    await shell(`cd ${mount}; sha256sum -c --quiet ${folder}/sums; cd /; umount ${mount}`);
    await shell(`e2fsck -fn ${two}`);
    expect(await attached.end('SIGTERM')).toBe(0);
    expect(await sessionsOf(tgt)).toBe(0);
    expect(await configuredDevices()).toEqual([]);
    await run('fio', ...job, '--verify_only', `--filename=${raw}`, `--output=${folder}/again`);
    await shell(`e2fsck -fn ${ext4}`);
    const report = JSON.parse(await readFile(`${folder}/fio.json`, 'utf8')) as FioReport;
    expect(report.jobs[0]?.error).toBe(0);
    const stallMs = (report.jobs[0]?.write.clat_ns.max ?? 0) / 1e6;
    const writes = report.jobs[0]?.write.total_ios;
    console.log(`${KILLS} kills: ${writes} writes, longest ${stallMs.toFixed(0)} ms; ${wrote}`);
  });

  it('SIGTERM with --keep-devices leaves the devices and the session to the next process', async () => {
    const file = join(folder, 'disk');
    await using tgt = await startTgt({
      luns: [{ file, sizeBytes: 16 * MIB }],
    });
    const first = await attach(tgt.url(), ['--keep-devices']);
    await run('dd', 'if=/dev/urandom', `of=${folder}/bytes`, 'bs=1M', 'count=16');
    const copy = background(
      'dd',
      `if=${folder}/bytes`,
      `of=${first.device}`,
      'bs=64k',
      'oflag=direct',
    );
    await until(
      async () => (await writtenTo(first.device)) > MIB,
      60_000,
      () => 'dd to write',
    );
    expect(await first.end('SIGTERM')).toBe(0);
    expect(await configuredDevices()).toHaveLength(1);
    const leftAtMs = performance.now();
    const second = await attach(tgt.url());
    const pauseMs = performance.now() - leftAtMs;
    expect([second.device, second.sessionId]).toEqual([first.device, first.sessionId]);
    await copy.done;
    expect(await second.end('SIGTERM')).toBe(0);
    expect(await sha256(file)).toBe(await sha256(`${folder}/bytes`));
    console.log(`keep-devices: ready again after ${pauseMs.toFixed(0)} ms`);
  });

  it('a second attach is refused while the process lives (exit code 15)', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 4 * MIB }] });
    const first = await attach(tgt.url());
    const second = startAttach(tgt.url()).attached;
    expect(await second.exited).toBe(15);
    expect(second.errors()).toContain(`process ${first.pid} is already attached`);
    expect(await sizeOf(first.device)).toBe(4 * MIB);
    expect(await first.end('SIGTERM')).toBe(0);
  });
});

describe('devices taken over in an outage', () => {
  it('the devices hold their requests until the target is back, are removed after the latency, and return', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 8 * MIB }] });
    const first = await attach(tgt.url());
    const { device, sessionId } = first;
    await first.end('SIGKILL');
    await tgt.kill();
    const second = await attach(tgt.url(), ['--reconnect-interval', '1']);
    expect([second.device, second.sessionId]).toEqual([device, sessionId]);
    await second.waitFor('sessionState', { from: 'loggingIn', to: 'reconnecting' });
    const held = background(
      'dd',
      `if=${device}`,
      'of=/dev/null',
      'bs=4k',
      'count=1',
      'iflag=direct',
    );
    await sleep(500);
    expect(held.isRunning()).toBe(true);
    await tgt.restart();
    await held.done;
    await second.waitFor('sessionState', { to: 'loggedIn' });

    await second.end('SIGKILL');
    await tgt.kill();
    const third = await attach(tgt.url(), ['--reconnect-interval', '1', '--removal-latency', '3']);
    const failing = background('dd', `if=${device}`, 'of=/dev/null', 'bs=4k', 'count=1');
    await third.waitFor('deviceRemoved', { device });
    await expect(failing.done).rejects.toThrow('Input/output error');
    expect(await sizeOf(device)).toBe(0);
    await tgt.restart();
    await third.waitFor('deviceAttached', { device }, third.events.length);
    expect(await sizeOf(device)).toBe(8 * MIB);
    expect(third.sessionId).toBe(sessionId);
    expect(await third.end('SIGTERM')).toBe(0);
    expect(await stuckTasks()).toEqual([]);
  });

  it('the devices are never written if another disk has their place', async () => {
    const [right, wrong] = [join(folder, 'right'), join(folder, 'wrong')];
    const url = await (async () => {
      await using tgt = await startTgt({
        luns: [{ file: right, sizeBytes: 8 * MIB, params: { scsi_sn: 'right' } }],
      });
      const first = await attach(tgt.url());
      await first.end('SIGKILL');
      return { port: tgt.port, url: tgt.url() };
    })();
    await run('truncate', '-s', String(8 * MIB), wrong);
    const before = await sha256(wrong);
    await using _other = await startTgt({
      port: url.port,
      luns: [{ file: wrong, sizeBytes: 8 * MIB, params: { scsi_sn: 'wrong' } }],
    });
    const second = await attach(url.url, ['--reconnect-interval', '1']);
    const writing = background(
      'dd',
      'if=/dev/urandom',
      `of=${second.device}`,
      'bs=4k',
      'count=1',
      'oflag=direct',
    );
    const removed = await second.waitFor('deviceRemoved');
    expect(removed['reason']).toContain('another disk');
    await expect(writing.done).rejects.toThrow(/error|No space/);
    expect(await sha256(wrong)).toBe(before);
    await second.end('SIGTERM');
    expect(await configuredDevices()).toEqual([]);
  });
});
