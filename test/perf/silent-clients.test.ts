/** Clients of one disk that take much of a server and give nothing back. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type CommandProcess, Workplace } from '../helpers/command-process.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { FastTarget } from './fast-target.js';

const MIB = 2 ** 20;
const CLIENTS = 60;
const MEASURED_MS = 1500;

let folder = '';
let target: FastTarget;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-silent-'));
  target = await FastTarget.start(folder);
});
afterAll(async () => {
  target?.stop();
  await rm(folder, { recursive: true, force: true });
});

const socketOf = (place: Workplace) => place.file('disk.sock');
const open = (place: Workplace) => RawNbd.open(socketOf(place));

async function served(place: Workplace): Promise<CommandProcess> {
  const serve = place.start(['serve', target.url, '--socket', socketOf(place)]);
  await serve.lines(1);
  return serve;
}

/** Resident memory of a process, now and at most, in MB. */
function memoryMb({ pid }: CommandProcess): { now: number; most: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
  return { now: field('VmRSS') * 0.001024, most: field('VmHWM') * 0.001024 };
}

/** Reads of 64 KiB a second that one client gets, one after another. */
async function readsPerSecond(client: RawNbd): Promise<number> {
  const end = performance.now() + MEASURED_MS;
  let reads = 0;
  for (; performance.now() < end; reads += 1) {
    const { error } = await client.request(NBD.read, { length: 65_536 });
    expect(error).toBe(0);
  }
  return (1000 * reads) / MEASURED_MS;
}

it('a server of sixty clients that read no reply stays below 400 MB, and serves others', {
  timeout: 60_000,
}, async () => {
  await using place = await Workplace.make();
  await using serve = await served(place);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => open(place)));
  for (const client of clients) client.pause();
  for (let asked = 0; asked < 64; asked += 1) {
    for (const client of clients) void client.request(NBD.read, { length: MIB });
  }
  let last = -1;
  for (let now = memoryMb(serve).now; now > last; now = memoryMb(serve).now) {
    last = now;
    await sleep(1000);
  }
  const other = await open(place);
  expect((await other.request(NBD.read, { length: 512 })).error).toBe(0);
  const { most } = memoryMb(serve);
  console.log(`${CLIENTS} clients that read nothing: ${Math.round(most)} MB at most`);
  expect(most).toBeLessThan(400);
  for (const client of [...clients, other]) client.close();
});

it('clients that announce writes and send half of them slow no other client', {
  timeout: 60_000,
}, async () => {
  await using place = await Workplace.make();
  await using _serve = await served(place);
  const other = await open(place);
  await readsPerSecond(other);
  const alone = await readsPerSecond(other);
  const half = Buffer.alloc(MIB);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => open(place)));
  for (const client of clients) void client.request(NBD.write, { length: 2 * MIB, data: half });
  await sleep(1000);
  const beside = await readsPerSecond(other);
  expect((await other.request(NBD.write, { data: half })).error).toBe(0);
  console.log(`reads of 64 KiB: ${alone | 0}/s alone, ${beside | 0}/s beside half-sent writes`);
  expect(beside).toBeGreaterThan(alone / 2);
  for (const client of [...clients, other]) client.close();
});
