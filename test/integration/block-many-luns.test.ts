import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { judge, Workplace } from '../helpers/command-process.js';
import { startTgt } from '../helpers/tgt.js';

const LUNS = 64;
const MIB = 1 << 20;
const SIZE = 4 * MIB;
/** Tools that run at the same time. */
const SIDE_BY_SIDE = 8;
/** Node itself takes some 60 MiB; slabs for 64 LUNs of work and their idle ones come on top. */
const MEMORY_MIB_MAX = 300;

/** The most memory a process has had at a time, in MiB. */
async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

it('sixty-four LUNs of one target are exports of one process, each with its own bytes', {
  timeout: 300_000,
}, async () => {
  await using place = await Workplace.make();
  const file = (lun: number) => place.file(`lun${lun}.img`);
  const numbers = Array.from({ length: LUNS }, (_, index) => index + 1);
  await using tgt = await startTgt({
    luns: numbers.map((lun) => ({ file: file(lun), sizeBytes: SIZE })),
  });
  const socket = place.file('s');
  const url = tgt.url().replace(/\/1$/, '');
  await using serve = place.start(['serve', url, '--socket', socket, '--json']);
  const ready = (await serve.lines(LUNS)).map((line) => JSON.parse(line) as { lun: number });
  expect(ready.map(({ lun }) => lun)).toEqual(numbers);
  const listed = JSON.parse(
    await judge('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${socket}`),
  ) as { exports: { 'export-name': string; 'export-size': number }[] };
  expect(listed.exports.map((each) => each['export-name'])).toEqual(numbers.map(String));
  expect(new Set(listed.exports.map((each) => each['export-size']))).toEqual(new Set([SIZE]));

  const use = async (lun: number): Promise<void> => {
    const uri = `nbd+unix:///${lun}?socket=${socket}`;
    const commands = [`write -P ${lun} 0 ${SIZE}`, 'flush', `read -P ${lun} 0 ${SIZE}`];
    await judge('qemu-io', '-f', 'raw', ...commands.flatMap((each) => ['-c', each]), uri);
  };
  const left = [...numbers];
  const worker = async (): Promise<void> => {
    for (let lun = left.shift(); lun !== undefined; lun = left.shift()) await use(lun);
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  for (const lun of numbers) {
    const bytes = await readFile(file(lun));
    expect(bytes.equals(Buffer.alloc(SIZE, lun)), `LUN ${lun}`).toBe(true);
  }
  const memoryMib = await peakMemory(serve.pid);
  expect(memoryMib).toBeLessThan(MEMORY_MIB_MAX);
  process.stdout.write(`64 LUNs: ${memoryMib.toFixed(0)} MiB at most\n`);
  serve.kill('SIGTERM');
  expect((await serve.result).code).toBe(0);
});
