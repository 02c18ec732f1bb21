/**
 * A disk that loses what it has not flushed at each power cut, but for what it happened to have
 * written back, while the process that serves its device is killed: no client notices. The embedded
 * target, because no other one drops its cache.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { type EmbeddedTarget, embeddedTarget } from '../helpers/embedded-target.js';
import { destaged } from '../simulation/strikes-target.js';
import {
  type Attached,
  attach,
  cleanUp,
  configuredDevices,
  run,
  startAttach,
  stuckTasks,
  until,
} from './attached.js';

const NAME = 'iqn.2024-01.com.example:forgetful';
const SIZE_BYTES = 512 << 10;
/** Between two cuts. */
const REQUESTS = 200;
const FLAGS = ['--reconnect-interval', '1'];
const RETAINED = '/run/iscsi-nbd/retained';
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'power-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

/** Reads, writes and discards the kernel has finished on a device (Documentation/block/stat.rst). */
async function requestsOf(device: string): Promise<number> {
  const stat = await readFile(`/sys/block/${basename(device)}/stat`, 'utf8');
  const [reads = '', , , , writes = '', , , , , , , discards = ''] = stat.trim().split(/\s+/);
  return Number(reads) + Number(writes) + Number(discards);
}

/** The target with its power, and the processes that serve its disk one after another. */
class Scene {
  readonly disk: TargetDisk;
  readonly all: Attached[] = [];
  readonly #target: EmbeddedTarget;

  constructor(target: EmbeddedTarget, disk: TargetDisk) {
    this.#target = target;
    this.disk = disk;
  }

  get attached(): Attached {
    return this.all.at(-1) as Attached;
  }

  async powerFails(): Promise<void> {
    const { node, server } = this.#target;
    await server.stopListening();
    node.restart();
    this.disk.powerLoss(destaged(Math.floor(Math.random() * 2 ** 20)));
  }

  powerIsBack(): Promise<void> {
    return this.#target.server.listen();
  }

  async start(): Promise<void> {
    this.all.push(await attach(`${this.#target.url}/0`, FLAGS));
  }

  async kill(): Promise<void> {
    await this.attached.end('SIGKILL');
  }

  /** Starts a process, and kills it when it has begun to write again what is retained. */
  async startAndKill(): Promise<void> {
    const { attached } = startAttach(`${this.#target.url}/0`, FLAGS);
    this.all.push(attached);
    while (this.disk.unflushedBytes === 0) await sleep(1);
    await attached.end('SIGKILL');
  }
}

const cuts: Record<string, (scene: Scene) => Promise<void>> = {
  'the process is killed, and then the power fails': async (scene) => {
    await scene.kill();
    await scene.powerFails();
    await scene.powerIsBack();
    await scene.start();
  },
  'the process is killed in the outage, and the next one finds no target yet': async (scene) => {
    await scene.powerFails();
    await sleep(300);
    await scene.kill();
    await scene.start();
    await scene.powerIsBack();
  },
  'the next process is killed, too, while it writes again, and the power fails again': async (
    scene,
  ) => {
    await scene.kill();
    await scene.powerFails();
    await scene.powerIsBack();
    await scene.startAndKill();
    await scene.powerFails();
    await scene.powerIsBack();
    await scene.start();
  },
};

it('no write is lost and no read is stale if the process is killed in each power cut of a disk with a volatile cache', async () => {
  const disk = TargetDisk.ram({ sizeBytes: SIZE_BYTES, writeCache: 'volatile' });
  await using target = await embeddedTarget({ name: NAME, luns: { 0: disk } });
  const filesBefore = await readdir(RETAINED).catch(() => []);
  const scene = new Scene(target, disk);
  await scene.start();
  const { device } = scene.attached;
  const [stop, content] = [join(folder, 'stop'), join(folder, 'content')];
  const user = run('python3', resolve('test/vm/block-user.program.py'), device, stop, content);
  const failed = user.then(() => undefined);
  failed.catch(() => undefined);
  const someRequests = async () => {
    const before = await requestsOf(device);
    const isEnough = async () =>
      (await requestsOf(device)) > before + REQUESTS && disk.unflushedBytes > SIZE_BYTES / 16;
    await Promise.race([failed, until(isEnough, 120_000, () => `requests to ${device}`)]);
  };
  for (const cut of Object.values(cuts)) {
    await someRequests();
    await cut(scene);
    expect(scene.attached.device).toBe(device);
    await scene.attached.waitFor('writesReplayed');
  }
  await someRequests();
  await writeFile(stop, '');
  console.log(`${Object.keys(cuts).length} cuts: ${(await user).trim()}`);
  // What the medium holds after the last flush, and nothing else.
  disk.powerLoss();
  expect(disk.read(0, SIZE_BYTES).equals(await readFile(content))).toBe(true);
  for (const { events } of scene.all)
    expect(events.filter(({ event }) => event === 'ioError')).toEqual([]);
  expect(await scene.attached.end('SIGTERM')).toBe(0);
  expect(await readdir(RETAINED)).toEqual(filesBefore);
  expect(await configuredDevices()).toEqual([]);
  expect(await stuckTasks()).toEqual([]);
});
