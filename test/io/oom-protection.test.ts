import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';
import { protectFromOomKiller } from '../../src/io/oom-protection.js';

function refusal(code: string, errno: number): Error {
  return Object.assign(new Error(code), { code, errno, syscall: 'prctl' });
}

it('the protection against low memory is optional: each refusal is a sentence', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-memory-'));
  const oomPath = join(folder, 'oom_score_adj');
  await writeFile(oomPath, '0');
  const refusing = {
    setIoFlusher: () => {
      throw refusal('EPERM', 1);
    },
  } as unknown as NbdAddon;
  expect(await protectFromOomKiller(refusing, oomPath)).toEqual([
    'when memory is short, it may wait for its own device: this process has no ' +
      'CAP_SYS_RESOURCE (EPERM)',
  ]);
  expect(await readFile(oomPath, 'utf8')).toBe('-999');
  const allowing = { setIoFlusher: () => undefined } as unknown as NbdAddon;
  expect(await protectFromOomKiller(allowing, join(folder, 'no/such'))).toEqual([
    'when memory is short, it may be killed: this process has no CAP_SYS_RESOURCE (ENOENT)',
  ]);
  await rm(folder, { recursive: true });
});

it('a fault of our own in the protection is not taken for a refusal', async () => {
  const broken = {
    setIoFlusher: () => {
      throw new TypeError('broken');
    },
  } as unknown as NbdAddon;
  await expect(protectFromOomKiller(broken, '/nonexistent/file')).rejects.toThrow('broken');
});
