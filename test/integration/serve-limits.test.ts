/** A served disk under clients and signals that mean it no good. */
import { readFile, rename } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { judge, Workplace } from '../helpers/command-process.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { run } from '../vm/attached.js';

const NAME = 'iqn.2001-04.com.example:limits';
const SLOW = 120_000;

const oneLun = () =>
  embeddedTarget({ name: NAME, luns: { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) } });

/** Processor time of a process so far, in ms (proc(5): clock ticks of 10 ms). */
async function processorMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

it('a server without a free descriptor waits, and serves again when clients have gone', {
  timeout: SLOW,
}, async () => {
  await using target = await oneLun();
  await using place = await Workplace.make();
  const socket = place.file('disk.sock');
  await using serve = place.start(['serve', `${target.url}/0`, '--socket', socket]);
  await serve.lines(1);
  await run('prlimit', `--pid=${serve.pid}`, '--nofile=48:48');
  const clients: Socket[] = [];
  for (let count = 0; count < 80; count += 1) {
    const client = connect(socket);
    client.on('error', () => undefined);
    clients.push(client);
  }
  // The last ones cannot be accepted; that this costs nothing shows only over a time.
  await sleep(500);
  const before = await processorMs(serve.pid);
  await sleep(2000);
  expect((await processorMs(serve.pid)) - before).toBeLessThan(250);
  for (const client of clients) client.destroy();
  const client = await RawNbd.open(socket);
  expect((await client.request(NBD.read, { length: 512 })).error).toBe(0);
  client.close();
});

it('a server that ends leaves the socket of another one that has taken its path', {
  timeout: SLOW,
}, async () => {
  await using target = await oneLun();
  await using place = await Workplace.make();
  const [first, second] = [place.file('first.sock'), place.file('second.sock')];
  await using old = place.start(['serve', `${target.url}/0`, '--read-only', '--socket', first]);
  await using young = place.start(['serve', `${target.url}/0`, '--read-only', '--socket', second]);
  await Promise.all([old.lines(1), young.lines(1)]);
  await rename(second, first);
  old.kill('SIGTERM');
  expect((await old.result).code).toBe(0);
  (await RawNbd.open(first)).close();
});

it('SIGUSR1 opens no debugger', { timeout: SLOW }, async () => {
  await using target = await oneLun();
  await using place = await Workplace.make();
  const socket = place.file('disk.sock');
  await using serve = place.start(['serve', `${target.url}/0`, '--socket', socket]);
  await serve.lines(1);
  serve.kill('SIGUSR1');
  const client = await RawNbd.open(socket);
  for (let reads = 0; reads < 20; reads += 1) {
    expect((await client.request(NBD.read, { length: 512 })).error).toBe(0);
  }
  client.close();
  expect(serve.err).not.toContain('Debugger');
  serve.kill('SIGTERM');
  expect((await serve.result).code).toBe(0);
});

it('the URI of a socket leads to it, whatever its path has that a URI uses', {
  timeout: SLOW,
}, async () => {
  await using target = await oneLun();
  await using place = await Workplace.make();
  const socket = place.file('a&b=c#d?e%41+f.sock');
  await using serve = place.start(['serve', `${target.url}/0`, '--socket', socket]);
  const [ready = ''] = await serve.lines(1);
  const [uri = ''] = /nbd\+unix:\S+/.exec(ready) ?? [];
  expect(await judge('nbdinfo', '--size', uri)).toBe(`${1 << 20}\n`);
});
